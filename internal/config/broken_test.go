package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestStorePath(t *testing.T) {
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
		if got := strings.Replace(StorePath(path), filepath.Dir(path), "DIR", 1); got != c.want {
			t.Errorf("%s: StorePath = %s, want %s", c.name, got, c.want)
		}
	}
	if got := StorePath("/nowhere/stspub.toml"); got != defaultStore {
		t.Errorf("no file: StorePath = %s, want %s", got, defaultStore)
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
