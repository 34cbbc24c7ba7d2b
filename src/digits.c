/*
 * digits.c -- numbers as the text that PostgreSQL reads.
 *
 * A double becomes the shortest digits that give the same double back, whatever
 * the locale of the host; whole ones have no point, for they may be meant for an int.
 */
#include "digits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits from the right, at least `least` of them; where they begin. */
static char *put_digits(char *end, unsigned long long u, int least)
{
    for (; u || least > 0; u /= 10, least--)
        *--end = (char)('0' + u % 10);
    return end;
}

static int copy_out(char *to, const char *from, const char *end)
{
    memcpy(to, from, (size_t)(end - from));
    to[end - from] = '\0';
    return (int)(end - from);
}

int dbl_write_integer(char *to, long long n)
{
    char digits[DBL_DIGITS], *end = digits + sizeof digits, *at;
    at = put_digits(end, n < 0 ? 0 - (unsigned long long)n : (unsigned long long)n, 1);
    if (n < 0)
        *--at = '-';
    return copy_out(to, at, end);
}

/* Few digits before and after the point: n is a whole number divided by a power
 * of ten, both exact, which is how a reader gets at n too.  0 where it is not so. */
static int write_decimal(char *to, double n)
{
    char digits[DBL_DIGITS], *end = digits + sizeof digits, *at = end;
    double scaled = fabs(n), power = 1;
    int places = 0;
    while (floor(scaled) != scaled || scaled / power != fabs(n)) {
        power *= 10;
        scaled = fabs(n) * power;
        if (++places > 15 || scaled >= 1e15)
            return 0;
    }
    unsigned long long whole = (unsigned long long)scaled, unit = (unsigned long long)power;
    if (places > 0) {
        at = put_digits(at, whole % unit, places);
        *--at = '.';
    }
    at = put_digits(at, whole / unit, 1);
    if (signbit(n))
        *--at = '-';
    return copy_out(to, at, end);
}

/* A locale of the host's has another point, of several bytes perhaps. */
static int settle_point(char *to)
{
    char *point = to + strspn(to, "+-0123456789e");
    if (*point) {
        char *after = point + strcspn(point, "+-0123456789e");
        *point = '.';
        memmove(point + 1, after, strlen(after) + 1);
    }
    return (int)strlen(to);
}

int dbl_write_number(char *to, double n)
{
    if (isnan(n))
        return snprintf(to, DBL_DIGITS, "NaN");
    if (isinf(n))
        return snprintf(to, DBL_DIGITS, n > 0 ? "Infinity" : "-Infinity");
    if (floor(n) == n && (fabs(n) < 0x1p63 || n == -0x1p63) &&
        n != 0) /* may be meant for an int8 */
        return dbl_write_integer(to, (long long)n);
    int size = fabs(n) < 1e15 ? write_decimal(to, n) : 0;
    if (size > 0)
        return size;
    int digits = 14;
    do
        snprintf(to, DBL_DIGITS, "%.*g", ++digits, n);
    while (digits < 17 && strtod(to, NULL) != n);
    return settle_point(to);
}

int dbl_write_single(char *to, float n)
{
    if (isnan(n) || isinf(n))
        return dbl_write_number(to, n);
    int digits = 5;
    do
        snprintf(to, DBL_DIGITS, "%.*g", ++digits, n);
    while (digits < 9 && strtof(to, NULL) != n);
    return settle_point(to);
}
