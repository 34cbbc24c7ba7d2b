/*
 * tls.c -- bytes that wait inside OpenSSL.
 *
 * SSL_pending must be the one that libpq calls: the host may have brought another
 * OpenSSL.  So it is looked up in what libpq is linked with.
 */
#include "tls.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "process.h"

static int (*ssl_pending)(const void *ssl);
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find(void)
{
    void *(*of_libpq)(PGconn *, const char *) = PQsslStruct;
    void *address;
    memcpy(&address, &of_libpq, sizeof address);
    void *found = dlsym(dbl_library_of(address), "SSL_pending");
    memcpy(&ssl_pending, &found, sizeof ssl_pending);
}

int dbl_tls_pending(PGconn *pg)
{
    if (!PQsslInUse(pg))
        return 0;
    pthread_once(&once, find);
    void *ssl = PQsslStruct(pg, "OpenSSL");
    return ssl && ssl_pending && ssl_pending(ssl) > 0;
}
