-- What there are few of, to be counted.
CREATE INDEX domains_removed ON domains (step, removed) WHERE removed <> 0;
CREATE INDEX domains_findings ON domains (name) WHERE findings <> '';
