// Package policygen holds what RFC 8461 says about names, policies, TXT records and ids, as pure functions.
package policygen
