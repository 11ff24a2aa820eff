// Package e2e holds stspub to its promises from outside: nothing but tests, in which the real binary runs as a process of
// its own and is watched as the world would watch it.
//
// A world (see world_test.go) is one small internet: BIND, Knot, or a fake of Cloudflare with its name server; an ACME
// authority that validates through that; a provider with its configuration file; and gates in the lines between them,
// which a test shuts to have the daemon stand still at a step. Worlds share no address, so tests run side by side.
//
// A cluster (see cluster_test.go) is a world with three daemons on a real PostgreSQL behind a load balancer; a fleet (see
// fleet_test.go) is one for two tenants with many domains, and has an audit for the end: books, DNS and answers agree,
// nothing is lost, and no tenant has to do with another.
//
// A watcher (see watch_test.go) plays all senders at once: it asks for the record, then for the policy, without pause,
// and notes whatever would lose mail: an id with the wrong policy, two records, none, an id that comes back.
package e2e
