/* check.h: the whole of the C tests' framework. A test file defines static void test_x(void) functions and a main that RUNs them. */
#ifndef SMOS_CHECK_H
#define SMOS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition); \
            exit(1); \
        } \
    } while (0)

#define CHECK_EQ(a, b) \
    do { \
        long long check_a = (long long)(a), check_b = (long long)(b); \
        if (check_a != check_b) { \
            fprintf(stderr, "%s:%d: %s: %s is %lld, expected %s = %lld\n", __FILE__, __LINE__, __func__, #a, check_a, #b, check_b); \
            exit(1); \
        } \
    } while (0)

#define CHECK_STR(a, b) \
    do { \
        const char *check_a = (a), *check_b = (b); \
        if (strcmp(check_a, check_b) != 0) { \
            fprintf(stderr, "%s:%d: %s: %s is \"%s\", expected \"%s\"\n", __FILE__, __LINE__, __func__, #a, check_a, check_b); \
            exit(1); \
        } \
    } while (0)

#define RUN(test) \
    do { \
        test(); \
        printf("ok %s\n", #test); \
    } while (0)

#endif
