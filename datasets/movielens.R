# Writes users, movies, ratings and times of the object movielens of Debian's package r-cran-dslabs as CSV.
#   Rscript movielens.R OUT.csv
arguments <- commandArgs(trailingOnly = TRUE)
if (length(arguments) != 1) stop("usage: Rscript movielens.R OUT.csv")
data(movielens, package = "dslabs")
write.csv(movielens[, c("userId", "movieId", "rating", "timestamp")], arguments[1], row.names = FALSE)
