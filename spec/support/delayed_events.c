/* The name by which an nginx with OpenResty's patches is known: LD_PRELOAD=delayed_events.so. */
int ngx_posted_delayed_events;
