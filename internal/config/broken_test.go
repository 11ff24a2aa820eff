package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestGlanceStorePath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, content, want string }{
		{"as it should be", base + "[store]\nurl = 'sqlite:/srv/a.db'\n", "/srv/a.db"},
		{"relative", "[store]\nurl = 'sqlite:a.db'\n", "DIR/a.db"},
		{"inline table", "store = { url = 'sqlite:a.db' }\n", "DIR/a.db"},
		{"none", base, defaultStore},
		{"of another engine", "[store]\nurl = 'postgres://u@db/stspub'\n", defaultStore},
		{"in a file with mistakes", "[server]\nhostname = 1\n[store]\nurl = 'sqlite:a.db'\n", "DIR/a.db"},
		{"before an error of syntax", "[store]\nurl = \"sqlite:a.db\" # here\n[server\n", "DIR/a.db"},
		{"after an error of syntax", "x\n# url = 'sqlite:b.db'\napi_url = 'sqlite:c.db'\nstore.url='sqlite:a.db'", "DIR/a.db"},
		{"nowhere in an error of syntax", "x\n", defaultStore},
		{"UTF-16", "\xff\xfe", defaultStore},
	} {
		path := inFolder(t, "stspub.toml", c.content, nil)
		s, err := GlanceStore(path, noEnv)
		if got := strings.Replace(s.Path, filepath.Dir(path), "DIR", 1); err != nil || got != c.want {
			t.Errorf("%s: GlanceStore = %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	if s, err := GlanceStore("/nowhere/stspub.toml", noEnv); err != nil || s.Path != defaultStore {
		t.Errorf("no file: GlanceStore = %s, %v, want %s", s.Path, err, defaultStore)
	}
	for name, content := range map[string]string{
		"names nobody":                    "[store]\nurl = 'postgres://db/stspub'\n",
		"of a wrong type":                 "[store]\nurl = 5\n",
		"misspelt":                        "[store]\nurI = 'postgres://u@db/stspub'\n",
		"no table":                        "store = 'postgres://u@db/stspub'\n",
		"without its end":                 "[store]\nurl = 'postgres://u@db/stspub\n",
		"before an error, without quotes": "[store]\nurl = postgres://u@db/stspub\n[server\n",
	} {
		if s, err := GlanceStore(inFolder(t, "stspub.toml", content, nil), noEnv); err == nil || !strings.Contains(err.Error(), "store") {
			t.Errorf("%s: GlanceStore = %+v, %v, want an error: the default is another store", name, s, err)
		}
	}
}

func TestGlanceServer(t *testing.T) {
	t.Parallel()
	const own = "[server]\nhostname = 'sts.example.net'\nnode = 'b'\nnode_address = '192.0.2.2:443'\nhttps = '192.0.2.2:443'\n" +
		"admin = 'unix:a.sock'\nproxies = [\n '10.0.0.0/8', # all\n]\n"
	for name, content := range map[string]string{
		"as it should be":              base[strings.Index(base, "[acme"):] + own,
		"before one that has a server": own + "[account.main]\nserver = '192.0.2.53'\n[mxset\n",
		"with mistakes elsewhere":      own + "[mxset.eu]\nmx = 5\n[nowhere]\n",
		"before an error":              own + "[mxset\n",
		"after an error":               "x\n[store]\nnode = 'a'\n" + own + "[store]\nnode = 'c'",
		"without its certificate":      own + "admin_tls = ':8420'\nadmin_cert_file = 'none'\nadmin_key_file = 'none'\n[mxset\n",
	} {
		path := inFolder(t, "stspub.toml", content, nil)
		s, err := GlanceServer(path)
		if err != nil || s.Node != "b" || s.NodeAddress != "192.0.2.2:443" || s.HTTPS != s.NodeAddress || s.Hostname != "sts.example.net" ||
			s.Admin != "unix:"+filepath.Join(filepath.Dir(path), "a.sock") || len(s.Proxies) != 1 {
			t.Errorf("%s: GlanceServer = %+v, %v", name, s, err)
		}
	}
	for name, content := range map[string]string{
		"empty":               "",
		"broken head":         strings.Replace(own, "[server]", "[server", 1),
		"error in it":         strings.Replace(own, "'b'", "'b", 1),
		"wrong type":          strings.Replace(own, "'b'", "5", 1),
		"misspelt key":        strings.Replace(own, "node =", "nod =", 1),
		"a table twice":       own + own + "[mxset\n",
		"address of nobody":   strings.Replace(own, "'192.0.2.2:443'", "'nowhere'", 1),
		"none, and an error":  "[mxset\n",
		"none, and no errors": "[mxset.eu]\nmx = ['mx.example.net']\n",
	} {
		if s, err := GlanceServer(inFolder(t, "stspub.toml", content, nil)); err == nil {
			t.Errorf("%s: GlanceServer = %+v, want an error", name, s)
		}
	}
	if s, err := GlanceServer("/nowhere/stspub.toml"); err == nil {
		t.Errorf("no file: GlanceServer = %+v, want an error", s)
	}
}

func TestGlanceStorePostgres(t *testing.T) {
	t.Parallel()
	files := map[string]string{"word": "a/b@c\n"}
	for _, c := range []struct{ name, content, want string }{
		{"as it should be", base + "[store]\nurl = 'postgres://u@db/stspub'\npassword_file = 'word'\n", "postgres://u:a%2Fb%40c@db/stspub"},
		{"by a socket", "[store]\nurl = 'postgres://u@/stspub?host=/run'\n", "postgres://u@/stspub?host=/run"},
		{"in an error of syntax", "[store]\nurl = 'postgresql://u@db/stspub'\npassword_file = 'word'\n[server\n", "postgresql://u:a%2Fb%40c@db/stspub"},
	} {
		s, err := GlanceStore(inFolder(t, "stspub.toml", c.content, files), noEnv)
		if got := string(s.Postgres); err != nil || got != c.want {
			t.Errorf("%s: GlanceStore = %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestPostgresWarning(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]int{
		"postgres://u@db.example.net/stspub":                     1,
		"postgres://u@db.example.net/stspub?sslmode=require":     1,
		"postgres://u@db.example.net/stspub?sslmode=verify-full": 0,
		"postgres://u@127.0.0.1:5432/stspub":                     0,
		"postgres://u@[::1]/stspub":                              0,
		"postgres://u@localhost/stspub":                          0,
		"postgres://u@/stspub?host=/run/postgresql":              0,
	} {
		path := inFolder(t, "stspub.toml", base+"[store]\nurl = '"+url+"'\n", map[string]string{"token": "x"})
		_, warnings, err := Load(path, noEnv)
		if err != nil || len(warnings) != want {
			t.Errorf("%s: warnings %v, error %v, want %d", url, warnings, err, want)
		}
	}
}

func TestAdminAddr(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, content, want string }{
		{"none", base, defaultAdmin},
		{"relative", "[server]\nadmin = 'unix:a.sock'\n", "unix:DIR/a.sock"},
		{"address", "server.admin = '127.0.0.1:8420'\n", "127.0.0.1:8420"},
		{"in a file with mistakes", "[server]\nhostname = 1\nadmin = 'unix:/a.sock'\n", "unix:/a.sock"},
		{"not on loopback", "[server]\nadmin = ':8420'\n", defaultAdmin},
		{"of a wrong type", "[server]\nadmin = 8420\n", defaultAdmin},
		{"in a file with an error of syntax", "[server\nadmin = 'unix:a.sock'\n", "unix:DIR/a.sock"},
		{"nowhere in an error of syntax", "[server\n", defaultAdmin},
	} {
		path := inFolder(t, "stspub.toml", c.content, nil)
		if got := strings.Replace(AdminAddr(path), filepath.Dir(path), "DIR", 1); got != c.want {
			t.Errorf("%s: AdminAddr = %s, want %s", c.name, got, c.want)
		}
	}
	if got := AdminAddr("/nowhere/stspub.toml"); got != defaultAdmin {
		t.Errorf("no file: AdminAddr = %s, want %s", got, defaultAdmin)
	}
}

func TestGlanceStoreKeys(t *testing.T) {
	t.Parallel()
	env := func(name string) string {
		if name == "STORE" {
			return strings.Repeat("01", storeKeySize)
		}
		return ""
	}
	one, two, three := strings.Repeat("\x01", storeKeySize), strings.Repeat("\x02", storeKeySize), strings.Repeat("\x03", storeKeySize)
	files := map[string]string{"two": strings.Repeat("02", storeKeySize), "three": strings.Repeat("03", storeKeySize) + "\n", "bad": "x"}
	for _, c := range []struct{ name, content, want string }{
		{"none", base, ""},
		{"as it should be", "[store]\nkey_file = 'two'\nold_key_files = ['three']\n", two + three},
		{"one cannot be read", "[store]\nkey_env = 'STORE'\nold_key_files = ['bad', 'three']\n", one + three},
		{"in a file with mistakes", "[server]\nhostname = 1\n[store]\nkey_env = 'STORE'\n", one},
		{"in an error of syntax", "[account.x]\nkey_file = 'three'\n[store]\nkey_file = 'two'\nold_key_files = [\n'three', # old\n 'bad']\n[server\n", two + three},
		{"as dotted keys in one", "store.key_env = 'STORE'\n[server\n", one},
		{"of an account in one", "[account.x]\nkey_file = 'three'\n[server\n", ""},
	} {
		got := ""
		s, err := GlanceStore(inFolder(t, "stspub.toml", c.content, files), env)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, key := range s.Keys {
			got += string(key)
		}
		if got != c.want {
			t.Errorf("%s: keys %q, want %q", c.name, got, c.want)
		}
	}
}
