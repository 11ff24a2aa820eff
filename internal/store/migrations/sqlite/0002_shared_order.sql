-- The domains of an MX set are read by name, and often only the first of them: without the name in the index, all of them
-- are sorted first.
DROP INDEX domains_mxset;
CREATE INDEX domains_mxset ON domains (tenant, mxset, name);
