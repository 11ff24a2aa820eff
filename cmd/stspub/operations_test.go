package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
)

// operator works through docs/operations.md on a running "stspub dev".
type operator struct {
	*testing.T
	dev  *devRun
	path string // with the binary in it
	said string // by the last block of commands
}

// section returns the fenced blocks of a section of docs/operations.md, each with its language before it.
func section(t *testing.T, title string) [][2]string {
	t.Helper()
	return sectionOf(t, "../../docs/operations.md", "\n## "+title+"\n")
}

// sectionOf returns the fenced blocks behind a header of a document, each with its language before it.
func sectionOf(t *testing.T, path, header string) [][2]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), header)
	if !found {
		t.Fatalf("%s has no %q", path, header)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	rest = strings.NewReplacer("example.org", "one.test", "example.net", "provider.test").Replace(rest)
	var found2 [][2]string
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(rest, -1) {
		found2 = append(found2, [2]string{m[1], m[2]})
	}
	return found2
}

// do carries out the next n blocks: commands are run, settings come into new.toml.
func (o *operator) do(blocks *[][2]string, n int) {
	o.Helper()
	for _, b := range (*blocks)[:n] {
		if b[0] == "toml" {
			o.set("new.toml", b[1])
			continue
		}
		cmd := exec.Command("sh", "-e", "-c", b[1])
		cmd.Dir = o.dev.dir
		cmd.Env = append(os.Environ(), asCommand+"=1", "PATH="+o.path+":"+os.Getenv("PATH"), "STSPUB_ADMIN=unix:"+filepath.Join(o.dev.dir, "admin.sock"))
		out, err := cmd.CombinedOutput()
		if o.said = string(out); err != nil {
			o.Fatalf("%s: %v\n%s", b[1], err, out)
		}
	}
	*blocks = (*blocks)[n:]
}

// set replaces the keys of a table, each of which may go over several lines, or adds them.
func (o *operator) set(file, settings string) {
	o.Helper()
	path := filepath.Join(o.dev.dir, file)
	text, err := os.ReadFile(path)
	if err != nil {
		o.Fatal(err)
	}
	header, keys, _ := strings.Cut(settings, "\n")
	before, table, found := strings.Cut(string(text), header+"\n")
	if !found {
		o.Fatalf("%s has no table %s", file, header)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(keys), "\n") {
		key, _, _ := strings.Cut(line, " =")
		old := regexp.MustCompile(`(?ms)^` + key + ` = (\[.*?^\]|\[[^\n]*\]|"[^\n]*")$`).FindString(table)
		if old == "" {
			table = line + "\n" + table
			continue
		}
		table = strings.Replace(table, old, line, 1)
	}
	write(o.T, path, before+header+"\n"+table)
}

// await waits until a domain is as it should be.
func (o *operator) await(name, what string, good func(publish.Status) bool) {
	o.Helper()
	client := httpd.NewClient("unix:" + filepath.Join(o.dev.dir, "admin.sock"))
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		s, err := client.Domain(o.Context(), name)
		if err == nil && good(s) || err != nil && what == "gone" {
			return
		}
		if time.Now().After(deadline) {
			o.Fatalf("%s is not %s: %+v, %v", name, what, s, err)
		}
	}
}

func (o *operator) live(policy string) {
	o.Helper()
	for _, name := range []string{"one.test", "two.test", "three.test"} {
		o.await(name, "live with "+policy, func(s publish.Status) bool {
			return s.Step == publish.StepLive && !s.Fault && strings.Contains(s.Policy, policy)
		})
	}
}

// mx sets the MX of all domains, as the people who hold their zones do.
func (o *operator) mx(host string) {
	o.Helper()
	server := regexp.MustCompile(`DNS server at (\S+)`).FindStringSubmatch(o.dev.screen.since(0))[1]
	key, err := os.ReadFile(filepath.Join(o.dev.dir, "tsig.key"))
	if err != nil {
		o.Fatal(err)
	}
	for _, name := range []string{"one.test.", "two.test.", "three.test."} {
		m := new(dns.Msg).SetUpdate(name)
		m.RemoveRRset([]dns.RR{&dns.MX{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeMX, Class: dns.ClassINET}}})
		rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN MX 10 %s.", name, host))
		if err != nil {
			o.Fatal(err)
		}
		m.Insert([]dns.RR{rr})
		m.SetTsig("stspub.", dns.HmacSHA256, 300, time.Now().Unix())
		c := dns.Client{Net: "tcp", TsigSecret: map[string]string{"stspub.": strings.TrimSpace(string(key))}}
		if r, _, err := c.Exchange(m, server); err != nil || r.Rcode != dns.RcodeSuccess {
			o.Fatalf("update %s at %s: %v %v", name, server, r, err)
		}
	}
}

func (o *operator) want(words ...string) {
	o.Helper()
	for _, w := range words {
		if !strings.Contains(o.said, w) {
			o.Errorf("the commands do not say %q:\n%s", w, o.said)
		}
	}
}

// newOperator works on a "stspub dev" of his own.
func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{T: t, dev: startDev(t, t.TempDir()), path: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(o.path, "stspub")); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestOperations does what docs/operations.md says, in its words, and sees that it comes out as it says.
func TestOperations(t *testing.T) {
	o := newOperator(t)
	if _, _, err := net.SplitHostPort(regexp.MustCompile(`DNS server at (\S+)`).FindStringSubmatch(o.dev.screen.since(0))[1]); err != nil {
		t.Fatal(err)
	}

	move := section(t, "Move customers to new MX hosts")
	o.do(&move, 3)
	o.want("mx2.provider.test of main may be put into DNS from", "3 domains")
	o.live("mx: mx2.provider.test")
	o.do(&move, 2)
	if _, out, code := o.stspub("plan", "--config", "new.toml"); code != 1 || !strings.Contains(out, "stranded") || !strings.Contains(out, "REFUSED: ") {
		t.Errorf("plan before DNS was changed: exit code %d\n%s", code, out)
	}
	o.mx("mx2.provider.test")
	o.do(&move, 1)
	o.want("mx1.provider.test of main has to stay in service until")
	o.live("mode: enforce\r\nmax_age: 604800\r\nmx: mx2.provider.test")

	emergency := section(t, "Leave enforce in an emergency")
	o.set("stspub.toml", "[mxset.main]\nrollout = \"2w\"\n")
	if _, out, code := o.stspub("reload"); code != 0 {
		t.Fatalf("reload with a roll-out: exit code %d\n%s", code, out)
	}
	o.do(&emergency, 1)
	o.await("one.test", "in testing", func(s publish.Status) bool {
		return s.Step == publish.StepLive && strings.Contains(s.Policy, "mode: testing") && s.Stage == "testing, by hand"
	})
	o.do(&emergency, 1)
	o.live("mode: enforce")
	o.do(&emergency, 3)
	o.live("mode: testing")

	missing := section(t, "A certificate does not come")
	o.do(&missing, 1)
	o.want("one.test is looked at now; see: stspub domain show one.test")

	told := section(t, "Know who changed what")
	o.do(&told, 1)
	o.want("configuration.taken", "mxset.changed", "domain.command        back to mode testing, until it is promoted by hand [socket]",
		"domain.promoted       its roll-out is over: mode enforce [socket]")

	leave := section(t, "A customer leaves")
	o.remove("one.test")
	o.do(&leave, 1)
	o.await("one.test", "draining", func(s publish.Status) bool {
		return s.Step == publish.StepDrain && !s.Horizon.IsZero() && strings.Contains(s.Policy, "mode: none")
	})
	o.do(&leave, 1)
	o.want("mta-sts.one.test. 300 IN CNAME mta-sts.provider.test.")
	o.do(&leave, 1)
	o.await("one.test", "gone", func(publish.Status) bool { return false })
	if left := len(move) + len(emergency) + len(missing) + len(told) + len(leave); left > 0 {
		t.Errorf("%d blocks of docs/operations.md were not run", left)
	}
	o.dev.interrupt(t)
}

// stspub runs a command as the operator does.
func (o *operator) stspub(args ...string) (stdout, all string, code int) {
	o.Helper()
	cmd := exec.Command(filepath.Join(o.path, "stspub"), args...)
	cmd.Dir = o.dev.dir
	cmd.Env = append(os.Environ(), asCommand+"=1", "STSPUB_ADMIN=unix:"+filepath.Join(o.dev.dir, "admin.sock"))
	out, _ := cmd.CombinedOutput() // its exit code is looked at
	return string(out), string(out), cmd.ProcessState.ExitCode()
}

// remove deletes a [[domain]] table from stspub.toml.
func (o *operator) remove(name string) {
	o.Helper()
	path := filepath.Join(o.dev.dir, "stspub.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		o.Fatal(err)
	}
	table := regexp.MustCompile(`(?ms)^\[\[domain\]\]\nname = "` + regexp.QuoteMeta(name) + `"\n.*?(\n\n|\z)`).FindString(string(text))
	if table == "" {
		o.Fatalf("stspub.toml has no table of %s:\n%s", name, text)
	}
	write(o.T, path, strings.Replace(string(text), table, "", 1))
}
