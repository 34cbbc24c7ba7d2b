/*
 * pq.h -- libpq, and what this libpq can do.
 *
 * Written for current libpq.  Where an older one (14 is the oldest) lacks
 * something, a DBL_HAS_ name is 0 here; the verb stays and answers
 * "unsupported", or does the same by older means.  No other file mentions a
 * version of libpq.
 */
#ifndef DBL_PQ_H
#define DBL_PQ_H

#include <libpq-fe.h>

#ifndef LIBPQ_HAS_PIPELINING
#error "dblink needs libpq 14 or newer (Debian: libpq-dev)"
#endif

#ifdef LIBPQ_HAS_ASYNC_CANCEL /* 17: PQcancelCreate and its family */
#define DBL_HAS_ASYNC_CANCEL 1
#else
#define DBL_HAS_ASYNC_CANCEL 0
#endif

/* What libpq says of a connection, "" where that is NULL. */
static inline const char *dbl_said(const char *text)
{
    return text ? text : "";
}

#ifdef LIBPQ_HAS_CHUNK_MODE /* 17: PQsetChunkedRowsMode */
#define DBL_HAS_CHUNKED_ROWS 1
#else
#define DBL_HAS_CHUNKED_ROWS 0
#endif

#ifdef LIBPQ_HAS_CLOSE_PREPARED /* 17: PQsendClosePrepared */
#define DBL_HAS_CLOSE_PREPARED 1
#else
#define DBL_HAS_CLOSE_PREPARED 0
#endif

#ifdef LIBPQ_HAS_SEND_PIPELINE_SYNC /* 17: PQsendPipelineSync, a sync without a flush */
#define DBL_HAS_SEND_PIPELINE_SYNC 1
#else
#define DBL_HAS_SEND_PIPELINE_SYNC 0
#endif

#ifdef LIBPQ_HAS_FULL_PROTOCOL_VERSION /* 18: PQfullProtocolVersion */
#define DBL_HAS_FULL_PROTOCOL_VERSION 1
#else
#define DBL_HAS_FULL_PROTOCOL_VERSION 0
#endif

#endif
