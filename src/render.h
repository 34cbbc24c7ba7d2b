/*
 * render.h -- a result straight to text: JSON and CSV.
 */
#ifndef DBL_RENDER_H
#define DBL_RENDER_H

#include "compat.h"

void dbl_render_open(lua_State *L);

#endif
