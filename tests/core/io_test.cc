/* io_test.cc - files are whole or untouched: every operation made to fail, processes killed in the middle. */
#include "host/core/io.h"
#include "host/core/mem.h"
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{

class Io : public testing::Test
{
  protected:
    std::string dir, path;

    void SetUp() override
    {
        char name[] = "/tmp/temper-io-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
        path = dir + "/file";
    }
    void TearDown() override
    {
        tp_io_fail_at(0, 0);
        tp_alloc_fail_at(0, 0);
        ASSERT_EQ(std::system(("rm -rf " + dir).c_str()), 0);
    }
    std::string content() const
    {
        std::ifstream f(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(f), {}};
    }
    std::vector<std::string> names() const
    {
        std::vector<std::string> out;
        DIR *d = opendir(dir.c_str());
        while (const dirent *e = readdir(d))
            if (e->d_name[0] != '.')
                out.emplace_back(e->d_name);
        closedir(d);
        return out;
    }
    tp_status replace(const std::string &bytes) const
    {
        return tp_io_replace(path.c_str(), bytes.data(), bytes.size());
    }
};

bool says(const std::string &part)
{
    return std::string(tp_last_error()).find(part) != std::string::npos;
}

int open_files()
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d) != nullptr)
        n++;
    closedir(d);
    return n;
}

TEST_F(Io, ReplaceAndReadGiveTheBytesBack)
{
    unsigned char *bytes = nullptr;
    size_t n = 1;
    for (const std::string &text : {std::string(), std::string("a\0b", 3), std::string(1 << 20, 'x')}) {
        ASSERT_EQ(replace(text), TP_OK) << tp_last_error();
        ASSERT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_OK) << tp_last_error();
        EXPECT_EQ(std::string(reinterpret_cast<char *>(bytes), n), text);
        EXPECT_EQ(bytes[n], 0);
        tp_free(bytes);
    }
    EXPECT_EQ(names(), std::vector<std::string>{"file"});
}

TEST_F(Io, NothingIsReadFromWhatIsNoFile)
{
    unsigned char *bytes = nullptr;
    size_t n = 1;
    EXPECT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_ENOENT);
    EXPECT_TRUE(says(path + ": no such file")) << tp_last_error();
    EXPECT_EQ(tp_io_read(dir.c_str(), &bytes, &n), TP_EIO);
    EXPECT_TRUE(says("not a regular file")) << tp_last_error();
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_EIO); /* and does not wait for a writer */
    EXPECT_EQ(bytes, nullptr);
}

TEST_F(Io, NoPermission)
{
    if (geteuid() == 0)
        GTEST_SKIP() << "root may do anything";
    unsigned char *bytes = nullptr;
    size_t n = 0;
    int fd = -1;
    ASSERT_EQ(replace("old"), TP_OK);
    ASSERT_EQ(chmod(path.c_str(), 0), 0);
    EXPECT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_EIO);
    ASSERT_EQ(chmod(dir.c_str(), 0500), 0);
    EXPECT_EQ(replace("new"), TP_ECREATE);
    EXPECT_EQ(tp_io_mkdir((dir + "/sub").c_str()), TP_ECREATE);
    EXPECT_EQ(tp_io_lock(dir.c_str(), &fd), TP_ECREATE);
    ASSERT_EQ(chmod(dir.c_str(), 0700), 0);
}

TEST_F(Io, AFailedReadLeavesNothing)
{
    ASSERT_EQ(replace("old"), TP_OK);
    const uint64_t before = tp_io_count();
    unsigned char *bytes = nullptr;
    size_t n = 0;
    ASSERT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_OK);
    tp_free(bytes);
    const uint64_t steps = tp_io_count() - before;
    ASSERT_GE(steps, 3u);
    for (uint64_t k = 1; k <= steps; k++) {
        const int files = open_files();
        tp_io_fail_at(k, EIO);
        EXPECT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_EIO) << k;
        EXPECT_TRUE(says(path)) << tp_last_error();
        EXPECT_EQ(bytes, nullptr);
        EXPECT_EQ(open_files(), files) << k;
    }
    tp_alloc_fail_at(1, 0);
    EXPECT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_ENOMEM);
}

/* old: the file there before, or none at all. */
class IoReplaceFails : public Io, public testing::WithParamInterface<bool>
{
};

/* The fifth operation opens what was written to read it back. */
TEST_P(IoReplaceFails, WhatIsGoneWhenItIsReadBackWasNotWritten)
{
    tp_io_fail_at(5, ENOENT);
    const tp_status st = replace("new");
    tp_io_fail_at(0, 0);
    EXPECT_EQ(st, TP_EIO) << tp_last_error();
    EXPECT_TRUE(says("was gone before it could be read back")) << tp_last_error();
    EXPECT_TRUE(names().empty());
}

TEST_P(IoReplaceFails, AtEveryOperation)
{
    const bool had = GetParam();
    const std::string old = had ? "old content" : "", fresh(100000, 'n');
    uint64_t steps = 0;

    for (uint64_t k = 1; k == 1 || k <= steps; k++) {
        unlink(path.c_str());
        if (had) {
            ASSERT_EQ(replace(old), TP_OK);
        }
        if (k == 1) { /* counts the operations of a replacement that goes well */
            const uint64_t before = tp_io_count();
            ASSERT_EQ(replace(fresh), TP_OK);
            steps = tp_io_count() - before;
            ASSERT_EQ(steps, 10u); /* open, write, fsync, close, open, fstat, read, rename, open, fsync */
            unlink(path.c_str());
            if (had) {
                ASSERT_EQ(replace(old), TP_OK);
            }
        }
        tp_io_fail_at(k, ENOSPC);
        const tp_status st = replace(fresh);
        tp_io_fail_at(0, 0);
        EXPECT_EQ(st, k == 1 ? TP_ECREATE : TP_EIO) << k << ": " << tp_last_error();
        EXPECT_TRUE(says("No space left on device")) << k << ": " << tp_last_error();
        EXPECT_TRUE(says(dir)) << tp_last_error();
        if (k + 2 <= steps) /* up to the rename it is the old file; then only the folder's fsync can fail */
            EXPECT_EQ(content(), old) << k;
        else
            EXPECT_EQ(content(), fresh) << k;
        const size_t left = had || k + 2 > steps ? 1 : 0;
        EXPECT_EQ(names().size(), left) << "operation " << k << " left a temporary file";
    }
}

INSTANTIATE_TEST_SUITE_P(OldAndNone, IoReplaceFails, testing::Bool());

TEST_F(Io, AnInterruptedReadOrWriteIsTakenUpAgain)
{
    ASSERT_EQ(replace("old"), TP_OK);
    tp_io_fail_at(2, EINTR); /* open, write */
    EXPECT_EQ(replace("new"), TP_OK) << tp_last_error();
    EXPECT_EQ(content(), "new");
    unsigned char *bytes = nullptr;
    size_t n = 0;
    tp_io_fail_at(3, EINTR); /* open, fstat, read */
    EXPECT_EQ(tp_io_read(path.c_str(), &bytes, &n), TP_OK) << tp_last_error();
    EXPECT_EQ(n, 3u);
    tp_free(bytes);
}

TEST_F(Io, ReplaceRefusesWhatCannotBeReplaced)
{
    EXPECT_EQ(tp_io_replace((dir + "/none/file").c_str(), "x", 1), TP_ECREATE);
    EXPECT_EQ(tp_io_replace((dir + "/" + std::string(5000, 'n')).c_str(), "x", 1), TP_ECREATE);
    ASSERT_EQ(mkdir(path.c_str(), 0755), 0);
    EXPECT_EQ(replace("x"), TP_EIO);
    EXPECT_TRUE(says("rename")) << tp_last_error();
    EXPECT_EQ(names(), std::vector<std::string>{"file"});
}

TEST_F(Io, ATemporaryFileOfADeadProcessIsNotInTheWay)
{
    /* a process with the same number (in a container it often is) died in its first replacements */
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        for (int serial = 0; serial < 64; serial++)
            std::ofstream(path + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(serial)) << "left";
        _exit(replace("new") == TP_OK ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(content(), "new");
}

TEST_F(Io, APathWithoutAFolderIsInTheWorkingFolder)
{
    char before[4096];
    ASSERT_NE(getcwd(before, sizeof(before)), nullptr);
    ASSERT_EQ(chdir(dir.c_str()), 0);
    EXPECT_EQ(tp_io_replace("file", "here", 4), TP_OK) << tp_last_error();
    ASSERT_EQ(chdir(before), 0);
    EXPECT_EQ(content(), "here");
}

TEST_F(Io, MkdirMakesParentsAndIsHappyWithWhatIsThere)
{
    const std::string deep = dir + "/a//b/c/";
    for (int i = 0; i < 2; i++)
        EXPECT_EQ(tp_io_mkdir(deep.c_str()), TP_OK) << tp_last_error();
    struct stat s;
    ASSERT_EQ(stat((dir + "/a/b/c").c_str(), &s), 0);
    EXPECT_TRUE(S_ISDIR(s.st_mode));
    EXPECT_EQ(tp_io_mkdir("/"), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_io_mkdir("/tmp"), TP_OK) << tp_last_error();
}

TEST_F(Io, MkdirRefusesWhatCannotBeAFolder)
{
    ASSERT_EQ(replace("x"), TP_OK);
    EXPECT_EQ(tp_io_mkdir(path.c_str()), TP_ECREATE);
    EXPECT_TRUE(says(path + ": is not a folder")) << tp_last_error();
    EXPECT_EQ(tp_io_mkdir((path + "/below").c_str()), TP_ECREATE);
    EXPECT_EQ(tp_io_mkdir(""), TP_ECREATE);
    EXPECT_EQ(tp_io_mkdir(std::string(5000, 'n').c_str()), TP_ECREATE);
    tp_io_fail_at(1, ENOSPC);
    EXPECT_EQ(tp_io_mkdir((dir + "/a").c_str()), TP_ECREATE);
}

TEST_F(Io, ALockIsHeldOnceAndLetGoOnClose)
{
    int first = -1, second = 5;
    ASSERT_EQ(tp_io_lock(dir.c_str(), &first), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_io_lock(dir.c_str(), &second), TP_EBUSY);
    EXPECT_TRUE(says("pid " + std::to_string(getpid()))) << tp_last_error();
    EXPECT_TRUE(says(dir)) << tp_last_error();
    EXPECT_EQ(second, -1);
    close(first);
    ASSERT_EQ(tp_io_lock(dir.c_str(), &second), TP_OK) << tp_last_error();
    close(second);
    const int files = open_files();
    for (uint64_t k = 1; k <= 2; k++) {
        tp_io_fail_at(k, EACCES);
        EXPECT_EQ(tp_io_lock(dir.c_str(), &first), k == 1 ? TP_ECREATE : TP_EBUSY);
        EXPECT_EQ(first, -1);
    }
    EXPECT_EQ(open_files(), files);
    EXPECT_EQ(tp_io_lock((dir + "/none").c_str(), &first), TP_ECREATE);
}

TEST_F(Io, ALockEndsWithItsProcess)
{
    int ready[2], fd = -1;
    char c = 0;
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        const bool held = tp_io_lock(dir.c_str(), &fd) == TP_OK;
        if (!held || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    close(ready[1]); /* or a child that dies would leave the read waiting */
    ASSERT_EQ(read(ready[0], &c, 1), 1);
    EXPECT_EQ(tp_io_lock(dir.c_str(), &fd), TP_EBUSY);
    EXPECT_TRUE(says("pid " + std::to_string(child))) << tp_last_error();
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    EXPECT_EQ(tp_io_lock(dir.c_str(), &fd), TP_OK) << tp_last_error();
    close(fd);
    close(ready[0]);
}

/* Every byte the same, and as many as were written. */
bool whole(const std::string &s, size_t n)
{
    return s.size() == n && s.find_first_not_of(s[0]) == std::string::npos;
}

TEST_F(Io, KilledAtAnyTimeTheFileIsTheOldOneOrTheNewOne)
{
    const size_t n = 8u << 20;
    std::string bytes(n, 'a');
    ASSERT_EQ(replace(bytes), TP_OK);
    for (int round = 0; round < 24; round++) {
        int ready[2];
        char c = 0;
        ASSERT_EQ(pipe(ready), 0);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            for (int i = 0;; i++) {
                bytes.assign(n, static_cast<char>('b' + (round + i) % 20));
                if ((i == 0 && write(ready[1], "x", 1) != 1) || replace(bytes) != TP_OK)
                    _exit(1);
            }
        }
        close(ready[1]); /* or a child that dies would leave the read waiting */
        ASSERT_EQ(read(ready[0], &c, 1), 1);
        usleep(static_cast<useconds_t>(round * 1700 % 29000));
        kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status)) << "replacing failed in the child";
        close(ready[0]);
        EXPECT_TRUE(whole(content(), n)) << "round " << round;
        ASSERT_EQ(std::system(("rm -f " + path + ".tmp-*").c_str()), 0);
    }
}

TEST_F(Io, KilledInTheMiddleOfAWriteTheOldFileStays)
{
    ASSERT_EQ(replace("old"), TP_OK);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) { /* the system ends a process that writes more than this */
        const rlimit limit = {4096, 4096}, none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, SIG_DFL);
        _exit(replace(std::string(100000, 'n')) == TP_OK ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGXFSZ);
    EXPECT_EQ(content(), "old");
    EXPECT_EQ(names().size(), 2u); /* what it had written lies beside */
}

} // namespace
