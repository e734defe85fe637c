/* devices.c - temper devices: what a run can use, and why not. */
#include "host/cli/cli.h"
#include "temper/device.h"

static void show(json_t *list, json_t *entry, const char *device, const char *text)
{
    if (list == NULL)
        printf("%-7s %s\n", device, text);
    else {
        json_object_set_new(entry, "device", cli_json_text(device));
        json_object_set_new(entry, "text", cli_json_text(text));
        json_array_append(list, entry);
    }
    json_decref(entry);
}

static tp_status show_cpu(json_t *list)
{
    tp_device *dev = NULL;

    TP_TRY(tp_device_open(&dev, "cpu"));
    show(list, json_pack("{s:b}", "available", 1), "cpu", tp_device_text(dev));
    tp_device_close(dev);
    return TP_OK;
}

static void version(char *out, size_t size, int v)
{
    snprintf(out, size, "%d.%d", v / 1000, v % 1000 / 10);
}

/* One that cannot be described is a line that says why: the others are there all the same. */
static void show_gpu(json_t *list, int index)
{
    tp_device_info info;
    char device[32], text[1024], driver[16], runtime[16];

    snprintf(device, sizeof(device), "cuda:%d", index);
    if (tp_device_gpu_info(index, &info) != TP_OK) {
        show(list, json_pack("{s:b}", "available", 0), device, tp_last_error());
        return;
    }
    version(driver, sizeof(driver), info.driver);
    version(runtime, sizeof(runtime), info.runtime);
    const char *build = info.driver_build[0] != '\0' ? info.driver_build : NULL;
    snprintf(text, sizeof(text),
             "%s, compute capability %d.%d, %d SMs, %.1f of %.1f GiB free, driver %s%sCUDA %s%s, runtime %s, "
             "cuBLASLt %s, cuDNN %s",
             info.name, info.capability / 10, info.capability % 10, info.multiprocessors,
             (double)info.free_bytes / (1 << 30), (double)info.memory_bytes / (1 << 30), info.driver_build,
             build != NULL ? " (" : "", driver, build != NULL ? ")" : "", runtime, info.cublaslt, info.cudnn);
    show(list,
         json_pack("{s:b, s:o, s:i, s:i, s:I, s:I, s:s, s:s?, s:s, s:o, s:o}", "available", 1, "name",
                   cli_json_text(info.name), "capability", info.capability, "multiprocessors",
                   info.multiprocessors, "memory_bytes", (json_int_t)info.memory_bytes, "free_bytes",
                   (json_int_t)info.free_bytes, "driver", driver, "driver_build", build, "runtime", runtime,
                   "cublaslt", cli_json_text(info.cublaslt), "cudnn", cli_json_text(info.cudnn)),
         device, text);
}

int cli_devices(const cli_args *a)
{
    json_t *list = a->json ? json_array() : NULL;
    int n = 0;

    tp_status st = show_cpu(list);
    if (st == TP_OK && tp_device_gpu_count(&n) != TP_OK)
        show(list, json_pack("{s:b}", "available", 0), "cuda", tp_last_error());
    for (int i = 0; i < n && st == TP_OK; i++)
        show_gpu(list, i);
    const int code = a->json ? cli_json_print(list) : 0;
    return st == TP_OK ? code : cli_fail(st);
}
