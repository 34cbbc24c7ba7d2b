/*
 * tls.h -- bytes that wait inside OpenSSL.
 *
 * A record of TLS is decrypted as a whole.  What libpq did not take of it lies in
 * OpenSSL, and the socket is silent about it: who waits for the socket then
 * waits for ever.
 */
#ifndef DBL_TLS_H
#define DBL_TLS_H

#include "pq.h"

/* Whether such bytes wait.  Costs next to nothing where TLS is not in use. */
int dbl_tls_pending(PGconn *pg);

#endif
