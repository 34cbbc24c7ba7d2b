/*
 * replay.c -- an input for a fuzzer, without libFuzzer: as it is, cut off behind each byte, and with each byte another.
 *
 *   replay STRIDE FILE...      each STRIDE-th of these
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay(const uint8_t *data, size_t size)
{
    alarm(20); /* ends all */
    LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
    static const int others[] = {1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff};
    static uint8_t data[4096];
    unsigned long stride = strtoul(argv[1], NULL, 10), count = 0;
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size = file ? fread(data, 1, sizeof data, file) : 0;
        if (!file || fclose(file) != 0)
            return 1;
        replay(data, size);
        for (size_t at = 0; at < size; at++) {
            if (count++ % stride == 0)
                replay(data, at);
            for (unsigned k = 0; k < sizeof others / sizeof others[0]; k++)
                if (count++ % stride == 0) {
                    data[at] ^= (uint8_t)others[k];
                    replay(data, size);
                    data[at] ^= (uint8_t)others[k];
                }
        }
    }
    printf("%lu inputs\n", count / stride);
    return 0;
}
