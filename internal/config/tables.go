package config

// document is the configuration file as it is written. Line, in each table, is that of its header, 0 without one.
type document struct {
	Line int

	Server   serverTable             `toml:"server"`
	Store    storeTable              `toml:"store"`
	DNS      dnsTable                `toml:"dns"`
	ACME     map[string]acmeTable    `toml:"acme"`
	Accounts map[string]accountTable `toml:"account"`
	Alias    aliasTable              `toml:"alias"`
	Publish  publishTable            `toml:"publish"`
	Check    checkTable              `toml:"check"`
	MXSets   map[string]mxsetTable   `toml:"mxset"`
	Domains  []domainTable           `toml:"domain"`
}

type serverTable struct {
	Line int

	Hostname  text `toml:"hostname"`
	Addresses list `toml:"addresses"`
	Proxies   list `toml:"proxies"`
	HTTPS     text `toml:"https"`
	HTTP      text `toml:"http"`
	Admin     text `toml:"admin"`

	AdminTLS      text `toml:"admin_tls"`
	AdminCertFile text `toml:"admin_cert_file"`
	AdminKeyFile  text `toml:"admin_key_file"`

	Health text `toml:"health"`

	Linger      span `toml:"linger"`
	Node        text `toml:"node"`
	NodeAddress text `toml:"node_address"`
	State       text `toml:"state"`
}

type storeTable struct {
	Line int

	URL          text `toml:"url"`
	PasswordFile text `toml:"password_file"`
	PasswordEnv  text `toml:"password_env"`
	KeyFile      text `toml:"key_file"`
	KeyEnv       text `toml:"key_env"`
	OldKeyFiles  list `toml:"old_key_files"`
	KeepEvents   span `toml:"keep_events"`
}

type dnsTable struct {
	Line int

	Resolvers list            `toml:"resolvers"`
	Stub      map[string]list `toml:"stub"`
}

type acmeTable struct {
	Line int

	Directory   text   `toml:"directory"`
	Prefer      number `toml:"prefer"`
	Email       text   `toml:"email"`
	CAFile      text   `toml:"ca_file"`
	Profile     text   `toml:"profile"`
	EABKID      text   `toml:"eab_kid"`
	EABHMACFile text   `toml:"eab_hmac_file"`
	EABHMACEnv  text   `toml:"eab_hmac_env"`
	Staging     flag   `toml:"staging"`

	Orders       number `toml:"orders"`
	OrdersPeriod span   `toml:"orders_period"`
	DomainOrders number `toml:"domain_orders"`
	DomainPeriod span   `toml:"domain_period"`
	Failures     number `toml:"failures"`
	InFlight     number `toml:"in_flight"`
	PerSecond    number `toml:"per_second"`
}

type accountTable struct {
	Line int

	Provider text `toml:"provider"`

	APITokenFile text `toml:"api_token_file"`
	APITokenEnv  text `toml:"api_token_env"`
	APIURL       text `toml:"api_url"`

	Server       text `toml:"server"`
	KeyName      text `toml:"key_name"`
	KeyAlgorithm text `toml:"key_algorithm"`
	KeyFile      text `toml:"key_file"`
	KeyEnv       text `toml:"key_env"`

	APIKeyFile text `toml:"api_key_file"`
	APIKeyEnv  text `toml:"api_key_env"`
	ServerID   text `toml:"server_id"`

	AccessKeyID         text `toml:"access_key_id"`
	SecretAccessKeyFile text `toml:"secret_access_key_file"`
	SecretAccessKeyEnv  text `toml:"secret_access_key_env"`

	AuthID           text `toml:"auth_id"`
	SubAuthID        text `toml:"sub_auth_id"`
	AuthPasswordFile text `toml:"auth_password_file"`
	AuthPasswordEnv  text `toml:"auth_password_env"`

	ApplicationKey        text `toml:"application_key"`
	ApplicationSecretFile text `toml:"application_secret_file"`
	ApplicationSecretEnv  text `toml:"application_secret_env"`
	ConsumerKeyFile       text `toml:"consumer_key_file"`
	ConsumerKeyEnv        text `toml:"consumer_key_env"`

	KeyID      text `toml:"key_id"`
	SecretFile text `toml:"secret_file"`
	SecretEnv  text `toml:"secret_env"`
}

type aliasTable struct {
	Line int

	Zone    text `toml:"zone"`
	Account text `toml:"account"`
}

type publishTable struct {
	Line int

	Settle span `toml:"settle"`
	TTL    span `toml:"ttl"`

	NodeGrace span `toml:"node_grace"`
}

type checkTable struct {
	Line int

	Every        span   `toml:"every"`
	AllowPrivate list   `toml:"allow_private"`
	HTTPPort     number `toml:"http_port"`
	HTTPSPort    number `toml:"https_port"`
	SMTPPort     number `toml:"smtp_port"`
	CAFile       text   `toml:"ca_file"`
}

type mxsetTable struct {
	Line int

	MX          list `toml:"mx"`
	Mode        text `toml:"mode"`
	MaxAge      span `toml:"max_age"`
	Rollout     span `toml:"rollout"`
	Domains     list `toml:"domains"`
	DomainsFile text `toml:"domains_file"`
	Publish     text `toml:"publish"`
	Account     text `toml:"account"`
	TLSRPT      list `toml:"tlsrpt"`
}

type domainTable struct {
	Line int

	Name    text `toml:"name"`
	MXSet   text `toml:"mxset"`
	Publish text `toml:"publish"`
	Account text `toml:"account"`
	Adopt   flag `toml:"adopt"`
	TLSRPT  list `toml:"tlsrpt"`
}
