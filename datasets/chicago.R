# Writes the object Chicago of Debian's package r-cran-modeldata as CSV.
#   Rscript chicago.R OUT.csv
arguments <- commandArgs(trailingOnly = TRUE)
if (length(arguments) != 1) stop("usage: Rscript chicago.R OUT.csv")
data(Chicago, package = "modeldata")
write.csv(as.data.frame(Chicago), arguments[1], row.names = FALSE)
