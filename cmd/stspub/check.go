package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/sender"
)

func newCheck() *cobra.Command {
	var resolver, ca string
	var httpsPort, smtpPort uint16
	cmd := &cobra.Command{
		Use:   "check DOMAIN",
		Short: "Look at a domain as a sender does",
		Long: `check looks at a domain with the eyes of a sending mail server: its _mta-sts record, its policy with certificate and
headers, its MX against the policy, and STARTTLS with the certificate of each MX. Each finding names its section of the
RFC and what to do. It needs no server and no configuration, and works for every domain of the world.

The exit code is 0 if all is good, 1 if a fault was found, and 2 if the command was called wrongly.`,
		Example: `  stspub check example.org
  stspub check example.org --json
  stspub check example.org --resolver 192.0.2.53`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := policygen.ParseName(args[0])
			if err != nil {
				return usageError{err}
			}
			client, err := checkClient(resolver, ca, httpsPort, smtpPort)
			if err != nil {
				return err
			}
			report := client.Check(cmd.Context(), name)
			err = output(cmd, report, report.WriteText)
			if err == nil && !report.OK() {
				err = errFault
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&resolver, "resolver", "", "DNS server to ask, as `ADDR[:PORT]`; default: those of /etc/resolv.conf")
	f.StringVar(&ca, "ca", "", "trust the certificates in this PEM `FILE` instead of the system's")
	f.Uint16Var(&httpsPort, "https-port", 443, "`PORT` of policy hosts, for laboratories")
	f.Uint16Var(&smtpPort, "smtp-port", 25, "`PORT` of MX, for laboratories")
	jsonFlag(cmd, "")
	return cmd
}

func checkClient(resolver, ca string, httpsPort, smtpPort uint16) (*sender.Client, error) {
	servers, err := resolverServers(resolver)
	if err != nil {
		return nil, err
	}
	c := &sender.Client{Resolver: &sender.Resolver{Servers: servers}, HTTPSPort: int(httpsPort), SMTPPort: int(smtpPort)}
	if resolver != "" {
		// One that is named may be authoritative only.
		c.Resolver = &sender.Resolver{Stub: map[string][]string{".": servers}}
	}
	if ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, usageError{fmt.Errorf("--ca: %w", err)}
	}
	c.Roots = x509.NewCertPool()
	if !c.Roots.AppendCertsFromPEM(pem) {
		return nil, usageError{fmt.Errorf("--ca: %s holds no certificate in PEM", ca)}
	}
	return c, nil
}

func resolverServers(resolver string) ([]string, error) {
	if resolver == "" {
		return sender.SystemServers()
	}
	if ip, err := netip.ParseAddr(resolver); err == nil {
		return []string{net.JoinHostPort(ip.String(), "53")}, nil
	}
	if _, err := netip.ParseAddrPort(resolver); err != nil {
		return nil, usageError{fmt.Errorf("--resolver: %q is not ADDR or ADDR:PORT", resolver)}
	}
	return []string{resolver}, nil
}
