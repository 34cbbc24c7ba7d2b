/*
 * type_time.c -- date, time, timetz, timestamp, timestamptz, interval.
 *
 * They are the strings that the server prints, in the style of the session.  In
 * binary they are counts of days and microseconds, and the string is made here:
 * as the server prints it with DateStyle ISO, TimeZone UTC and IntervalStyle
 * postgres, which dbl_type_settled is there to ask for.
 */
#include "type.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "fail.h"

enum { LONGEST = 96 }; /* of all these strings */

static const long long SECOND = 1000000, DAY = 86400000000;

/* The server's calendar, in days from 2000-01-01: from 4714-11-24 BC to before
 * 5874898-01-01 (date) and 294277-01-01 (timestamp). */
enum { FIRST_DAY = -2451545, LAST_DAY = 2145031948, LAST_STAMP = 106751982 };

/* u with at least that many digits; where they end. */
static char *put(char *to, unsigned long long u, int digits)
{
    char back[24];
    int n = 0;
    for (; u || n < digits; u /= 10)
        back[n++] = (char)('0' + u % 10);
    while (n > 0)
        *to++ = back[--n];
    return to;
}

static char *put2(char *to, unsigned u)
{
    to[0] = (char)('0' + u / 10);
    to[1] = (char)('0' + u % 10);
    return to + 2;
}

/* The day of a count from 2000-01-01, by a calendar of days whose years begin in March.
 * It counts from the year -4800, so that nothing is negative, and all fits 32 bits.
 * Before the year 1 comes 1 BC: *bc tells. */
static char *put_day(char *to, int days, int *bc)
{
    unsigned n = (unsigned)days + 730425 + 12 * 146097; /* 400 years have 146,097 days */
    unsigned era = n / 146097, doe = n % 146097;
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), m = (5 * doy + 2) / 153;
    unsigned day = doy - (153 * m + 2) / 5 + 1, month = m < 10 ? m + 3 : m - 9;
    int year = (int)(yoe + era * 400 + (month <= 2)) - 4800;
    *bc = year <= 0;
    unsigned y = (unsigned)(*bc ? 1 - year : year);
    if (y < 10000)
        to = put2(put2(to, y / 100), y % 100);
    else
        to = put(to, y, 1);
    *to++ = '-';
    to = put2(to, month);
    *to++ = '-';
    return put2(to, day);
}

/* A point and what there is of six digits. */
static char *put_fraction(char *to, unsigned us)
{
    if (us == 0)
        return to;
    *to++ = '.';
    to = put(to, us, 6);
    while (to[-1] == '0')
        to--;
    return to;
}

static char *put_clock(char *to, long long us)
{
    unsigned s = (unsigned)(us / SECOND);
    to = put2(to, s / 3600);
    *to++ = ':';
    to = put2(to, s / 60 % 60);
    *to++ = ':';
    to = put2(to, s % 60);
    return put_fraction(to, (unsigned)(us % SECOND));
}

static char *put_text(char *to, const char *text)
{
    size_t size = strlen(text);
    memcpy(to, text, size);
    return to + size;
}

static int push(lua_State *L, const char *from, const char *to)
{
    lua_pushlstring(L, from, (size_t)(to - from));
    return 1;
}

static int push_infinity(lua_State *L, int positive)
{
    lua_pushstring(L, positive ? "infinity" : "-infinity");
    return 1;
}

static int date_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[LONGEST], *to;
    int bc;
    (void)type;
    if (size != 4)
        return 0;
    int days = (int)dbl_get32(s);
    if (days == INT_MAX || days == INT_MIN)
        return push_infinity(L, days > 0);
    if (days < FIRST_DAY || days > LAST_DAY)
        return 0;
    to = put_day(text, days, &bc);
    return push(L, text, bc ? put_text(to, " BC") : to);
}

static int time_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[LONGEST];
    (void)type;
    if (size != 8)
        return 0;
    long long us = (long long)dbl_get64(s);
    if (us < 0 || us > DAY) /* 24:00:00 is a time */
        return 0;
    return push(L, text, put_clock(text, us));
}

/* A time, and seconds west of Greenwich. */
static int timetz_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[LONGEST], *to;
    (void)type;
    if (size != 12)
        return 0;
    long long us = (long long)dbl_get64(s);
    int zone = (int)dbl_get32(s + 8);
    if (us < 0 || us > DAY || zone <= -16 * 3600 || zone >= 16 * 3600)
        return 0;
    to = put_clock(text, us);
    *to++ = zone <= 0 ? '+' : '-';
    unsigned z = (unsigned)(zone < 0 ? -zone : zone);
    to = put2(to, z / 3600);
    if (z % 3600) {
        *to++ = ':';
        to = put2(to, z / 60 % 60);
    }
    if (z % 60) {
        *to++ = ':';
        to = put2(to, z % 60);
    }
    return push(L, text, to);
}

static int stamp(lua_State *L, const char *s, size_t size, const char *zone)
{
    char text[LONGEST], *to;
    int bc;
    if (size != 8)
        return 0;
    long long us = (long long)dbl_get64(s);
    if (us == LLONG_MAX || us == LLONG_MIN)
        return push_infinity(L, us > 0);
    long long day = us / DAY, rest = us % DAY;
    if (rest < 0) {
        rest += DAY;
        day--;
    }
    if (day < FIRST_DAY || day > LAST_STAMP)
        return 0;
    to = put_day(text, (int)day, &bc);
    *to++ = ' ';
    to = put_text(put_clock(to, rest), zone);
    return push(L, text, bc ? put_text(to, " BC") : to);
}

static int timestamp_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    return stamp(L, s, size, "");
}

static int timestamptz_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    return stamp(L, s, size, "+00");
}

/* "1 year", "-2 mons": where there are none, nothing.  Behind something negative
 * a positive number has a sign. */
static char *put_part(char *to, const char *text, long long n, const char *unit, int *negative)
{
    if (n == 0)
        return to;
    if (to > text)
        *to++ = ' ';
    if (n < 0)
        *to++ = '-';
    else if (*negative)
        *to++ = '+';
    *negative = n < 0;
    to = put(to, (unsigned long long)(n < 0 ? -n : n), 1);
    to = put_text(to, unit);
    if (n != 1)
        *to++ = 's';
    return to;
}

/* Microseconds, days, months: each with a sign of its own. */
static int interval_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[LONGEST], *to = text;
    (void)type;
    if (size != 16)
        return 0;
    long long us = (long long)dbl_get64(s);
    int days = (int)dbl_get32(s + 8), months = (int)dbl_get32(s + 12), negative = 0;
    if (us == LLONG_MAX && days == INT_MAX && months == INT_MAX)
        return push_infinity(L, 1);
    if (us == LLONG_MIN && days == INT_MIN && months == INT_MIN)
        return push_infinity(L, 0);
    to = put_part(to, text, months / 12, " year", &negative);
    to = put_part(to, text, months % 12, " mon", &negative);
    to = put_part(to, text, days, " day", &negative);
    if (us != 0 || to == text) {
        if (to > text)
            *to++ = ' ';
        if (us < 0)
            *to++ = '-';
        else if (negative)
            *to++ = '+';
        unsigned long long u = us < 0 ? 0 - (unsigned long long)us : (unsigned long long)us;
        to = put(to, u / 3600000000, 2);
        *to++ = ':';
        to = put2(to, (unsigned)(u / 60000000 % 60));
        *to++ = ':';
        to = put2(to, (unsigned)(u / 1000000 % 60));
        to = put_fraction(to, (unsigned)(u % 1000000));
    }
    return push(L, text, to);
}

/* codecs.epoch: a number, an integer where there is no fraction. */

static const long long EPOCH = 946684800; /* 2000 from 1970, in seconds */

static int push_seconds(lua_State *L, long long seconds, long long us)
{
    if (us == 0)
        dbl_pushint8(L, seconds);
    else
        lua_pushnumber(L, (double)seconds + (double)us / 1e6);
    return 1;
}

static int push_endless(lua_State *L, int positive)
{
    lua_pushnumber(L, positive ? HUGE_VAL : -HUGE_VAL);
    return 1;
}

static int epoch_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 8)
        return 0;
    long long us = (long long)dbl_get64(s);
    if (us == LLONG_MAX || us == LLONG_MIN)
        return push_endless(L, us > 0);
    long long rest = (us % SECOND + SECOND) % SECOND;
    return push_seconds(L, us / SECOND - (us % SECOND < 0) + EPOCH, rest);
}

/* As many digits as there are, of a number: where they end, NULL if there are too few. */
static const char *get(const char *s, const char *end, int digits, long long *n)
{
    const char *from = s;
    for (*n = 0; s < end && *s >= '0' && *s <= '9' && s - from < 7; s++)
        *n = *n * 10 + (*s - '0');
    return s - from < digits ? NULL : s;
}

/* "05:04:03", all but the first being optional, in seconds. */
static const char *get_clock(const char *s, const char *end, long long *seconds)
{
    long long part;
    *seconds = 0;
    for (int unit = 3600;; unit /= 60) {
        s = get(s, end, 2, &part);
        if (!s)
            return NULL;
        *seconds += part * unit;
        if (s == end || *s != ':' || unit == 1)
            return s;
        s++;
    }
}

/* Days from 2000-01-01, by a calendar of years that begin in March. */
static long long count_days(long long year, long long month, long long day)
{
    year += 4800 - (month < 3);
    return 365 * year + year / 4 - year / 100 + year / 400 +
           (153 * (month + (month < 3 ? 9 : -3)) + 2) / 5 + day - 1 - 730425 - 12 * 146097;
}

static int read_moment(const char *s, const char *end, long long *seconds, long long *us)
{
    long long year, month, day, clock = 0, zone = 0;
    int bc = end - s > 3 && memcmp(end - 3, " BC", 3) == 0;
    end -= bc ? 3 : 0;
    if (!(s = get(s, end, 4, &year)) || s == end || *s != '-' ||
        !(s = get(s + 1, end, 2, &month)) || s == end || *s != '-' ||
        !(s = get(s + 1, end, 2, &day)))
        return 0;
    *us = 0;
    if (s < end && (*s == ' ' || *s == 'T') && !(s = get_clock(s + 1, end, &clock)))
        return 0;
    if (s < end && *s == '.') {
        const char *point = s;
        if (!(s = get(s + 1, end, 1, us)) || s - point > 7)
            return 0;
        for (int digits = (int)(s - point) - 1; digits < 6; digits++)
            *us *= 10;
    }
    if (s < end && (*s == '+' || *s == '-')) {
        int west = *s == '-';
        if (!(s = get_clock(s + 1, end, &zone)))
            return 0;
        zone = west ? -zone : zone;
    }
    *seconds = count_days(bc ? 1 - year : year, month, day) * 86400 + clock - zone + EPOCH;
    return s == end;
}

static int epoch_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    long long seconds, us;
    (void)type;
    if (size == 8 && memcmp(s, "infinity", 8) == 0)
        return push_endless(L, 1);
    if (size == 9 && memcmp(s, "-infinity", 9) == 0)
        return push_endless(L, 0);
    if (read_moment(s, s + size, &seconds, &us))
        return push_seconds(L, seconds, us);
    lua_pushlstring(L, s, size);
    dbl_push_error(L, DBL_USAGE, "codecs.epoch cannot read '%s'", lua_tostring(L, -1));
    return lua_error(L);
}

const Type dbl_epoch_type = {0, 0, "epoch", epoch_text, epoch_binary, 0};

int dbl_epoch(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    return epoch_text(L, &dbl_epoch_type, text, size);
}

#define STYLED (DBL_TEXTUAL | DBL_BY_DATESTYLE)
#define ZONED  (STYLED | DBL_BY_TIMEZONE | DBL_MOMENT)
#define SPAN   (DBL_TEXTUAL | DBL_BY_INTERVALSTYLE)

const Type dbl_time_types[] = {
    {1082, 1182, "date",        dbl_decode_raw, date_binary,        STYLED             },
    {1083, 1183, "time",        dbl_decode_raw, time_binary,        DBL_TEXTUAL        },
    {1114, 1115, "timestamp",   dbl_decode_raw, timestamp_binary,   STYLED | DBL_MOMENT},
    {1184, 1185, "timestamptz", dbl_decode_raw, timestamptz_binary, ZONED              },
    {1186, 1187, "interval",    dbl_decode_raw, interval_binary,    SPAN               },
    {1266, 1270, "timetz",      dbl_decode_raw, timetz_binary,      DBL_TEXTUAL        },
    {0,    0,    NULL,          NULL,           NULL,               0                  },
};
