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
		{"of another engine", "[store]\nurl = 'postgres://db/stspub'\n", defaultStore},
		{"in a file with mistakes", "[server]\nhostname = 1\n[store]\nurl = 'sqlite:a.db'\n", "DIR/a.db"},
		{"before an error of syntax", "[store]\nurl = \"sqlite:a.db\" # here\n[server\n", "DIR/a.db"},
		{"after an error of syntax", "x\n# url = 'sqlite:b.db'\napi_url = 'sqlite:c.db'\nstore.url='sqlite:a.db'", "DIR/a.db"},
		{"nowhere in an error of syntax", "x\n", defaultStore},
		{"UTF-16", "\xff\xfe", defaultStore},
	} {
		path := inFolder(t, "stspub.toml", c.content, nil)
		if got := strings.Replace(GlanceStore(path, noEnv).Path, filepath.Dir(path), "DIR", 1); got != c.want {
			t.Errorf("%s: GlanceStore = %s, want %s", c.name, got, c.want)
		}
	}
	if got := GlanceStore("/nowhere/stspub.toml", noEnv).Path; got != defaultStore {
		t.Errorf("no file: GlanceStore = %s, want %s", got, defaultStore)
	}
}

func TestGlanceStorePostgres(t *testing.T) {
	t.Parallel()
	files := map[string]string{"word": "a/b@c\n"}
	for _, c := range []struct{ name, content, want string }{
		{"as it should be", base + "[store]\nurl = 'postgres://u@db/stspub'\npassword_file = 'word'\n", "postgres://u:a%2Fb%40c@db/stspub"},
		{"by a socket", "[store]\nurl = 'postgres://u@/stspub?host=/run'\n", "postgres://u@/stspub?host=/run"},
		{"in an error of syntax", "[store]\nurl = 'postgresql://u@db/stspub'\npassword_file = 'word'\n[server\n", "postgresql://u:a%2Fb%40c@db/stspub"},
		{"that names nobody", "[store]\nurl = 'postgres://db/stspub'\n", ""},
	} {
		if got := GlanceStore(inFolder(t, "stspub.toml", c.content, files), noEnv).Postgres; string(got) != c.want {
			t.Errorf("%s: GlanceStore = %q, want %q", c.name, string(got), c.want)
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
		for _, key := range GlanceStore(inFolder(t, "stspub.toml", c.content, files), env).Keys {
			got += string(key)
		}
		if got != c.want {
			t.Errorf("%s: keys %q, want %q", c.name, got, c.want)
		}
	}
}
