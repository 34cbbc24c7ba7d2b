#ifndef DBL_CONDITION_H
#define DBL_CONDITION_H

/* Whether the SQLSTATE is the condition of that name: 1 or 0; -1 where no
 * condition has the name.  As in PL/pgSQL, the name of a class (the codes that
 * end in 000) stands for everything in it. */
int dbl_condition_matches(const char *name, const char *sqlstate);

#endif
