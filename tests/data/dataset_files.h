/* dataset_files.h - the files of tests/golden/make_datasets.py, made once for a test program in a folder of
 * its own. */
#ifndef TP_TESTS_DATASET_FILES_H
#define TP_TESTS_DATASET_FILES_H
#include "temper/data.h"
#include <cstdlib>
#include <filesystem>
#include <string>

class DatasetFiles
{
  public:
    static const DatasetFiles &get()
    {
        static const DatasetFiles files;
        return files;
    }
    std::string path(const std::string &name) const
    {
        return (folder / name).string();
    }
    bool made = false;

  private:
    DatasetFiles()
    {
        char name[] = "/tmp/temper-datasets-XXXXXX";
        if (!mkdtemp(name))
            return;
        folder = name;
        const std::string command =
            "/usr/bin/python3 " TEMPER_SOURCE_DIR "/tests/golden/make_datasets.py " + folder.string();
        made = std::system(command.c_str()) == 0;
    }
    ~DatasetFiles()
    {
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    std::filesystem::path folder;
};

/* A data set that is freed. */
class Data
{
  public:
    explicit Data(const tp_data_spec &spec)
    {
        status = tp_data_open(&d, &spec);
    }
    ~Data()
    {
        tp_data_free(d);
    }
    Data(const Data &) = delete;
    Data &operator=(const Data &) = delete;
    tp_data *d = nullptr;
    tp_status status;
};

#endif
