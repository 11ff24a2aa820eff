package sender

// ServersOf is SystemServers for a file of the test's.
var ServersOf = serversOf
