package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/dev"
	"github.com/stspub/stspub/internal/lab"
)

func newDev() *cobra.Command {
	var o dev.Options
	var verbose bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole thing on this machine, with nothing to configure",
		Long: `dev runs stspub with an ACME CA, a DNS server and a mail server in the same process, for three example domains, and
prints each step of each of them. It needs no configuration, no root, and nothing outside this machine. Its configuration
is an ordinary one: edit it, send SIGHUP, and watch the change go out: policy, settle time, record, verified.`,
		Example: `  stspub dev
  stspub dev --dir lab     # keeps its files there; a second run goes on with them`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := listenFlags(cmd, o); err != nil {
				return err
			}
			var remove func() error
			if o.Dir, remove, err = devDir(o.Dir); err != nil {
				return err
			}
			for name, value := range lab.CAEnviron() {
				if err := os.Setenv(name, value); err != nil {
					return err
				}
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			signal.Ignore(syscall.SIGPIPE) // writing fails then, which ends the run, and the directory is removed
			o.Version, o.Command, o.Out, o.Reload = version(), called(), cmd.OutOrStdout(), hangup
			o.Log = slog.New(slog.DiscardHandler)
			if verbose {
				o.Log = newLogger(cmd.ErrOrStderr(), true)
			}
			err = dev.Run(cmd.Context(), o)
			if removeErr := remove(); err == nil {
				err = removeErr
			}
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "ended")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "`DIR` for ca.pem, stspub.toml and stspub.db; default: a temporary one, removed at the end")
	f.StringVar(&o.HTTPS, "https", "127.0.0.1:8443", "listen `ADDR:PORT` of the policy hosts")
	f.StringVar(&o.HTTP, "http", "127.0.0.1:8080", "listen `ADDR:PORT` for HTTP-01 challenges")
	f.StringVar(&o.DNS, "dns", "127.0.0.1:8053", "listen `ADDR:PORT` of the DNS server")
	f.BoolVarP(&verbose, "verbose", "v", false, "print the server's log on standard error")
	return cmd
}

// listenFlags checks the addresses. Only the DNS server can be asked which port it was given.
func listenFlags(cmd *cobra.Command, o dev.Options) error {
	for _, f := range []struct {
		flag, addr string
		anyPort    bool
	}{{"--https", o.HTTPS, false}, {"--http", o.HTTP, false}, {"--dns", o.DNS, true}} {
		host, port, err := net.SplitHostPort(f.addr)
		if err == nil && host != "" {
			_, err = netip.ParseAddr(host)
		}
		n, portErr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || portErr != nil:
			return usageError{fmt.Errorf(`%s: %q is no address to listen at; write ADDR:PORT as in %q`, f.flag, f.addr, cmd.Flag(f.flag[2:]).DefValue)}
		case n == 0 && !f.anyPort:
			return usageError{fmt.Errorf("%s: %q has port 0; choose a port from 1 to 65535", f.flag, f.addr)}
		}
	}
	return nil
}

// devDir makes the directory, and says how to remove it if it is a temporary one.
func devDir(dir string) (string, func() error, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "stspub-dev-")
		if err != nil {
			return "", nil, fmt.Errorf("make a temporary directory: %w", err)
		}
		return dir, func() error { return os.RemoveAll(dir) }, nil
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", nil, fmt.Errorf("--dir: %w", err)
	}
	return dir, func() error { return nil }, nil
}

// called is how this program was called, for lines to paste.
func called() string {
	if strings.Contains(os.Args[0], "/go-build") {
		return "go run ./cmd/stspub"
	}
	return os.Args[0]
}
