/*
 * digits.h -- numbers as the text that PostgreSQL reads.  No Lua in here.
 */
#ifndef DBL_DIGITS_H
#define DBL_DIGITS_H

enum { DBL_DIGITS = 32 }; /* room enough for either, the NUL too */

/* Write the number and a NUL; the length without it.  A single has fewer digits. */
int dbl_write_integer(char *to, long long n);
int dbl_write_number(char *to, double n);
int dbl_write_single(char *to, float n);

#endif
