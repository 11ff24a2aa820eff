package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/daemon"
)

const defaultConfig = "/etc/stspub/stspub.toml"

func newServe() *cobra.Command {
	var path string
	var dryRun, verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `serve publishes the policies of all configured domains until it is told to stop (SIGTERM or Ctrl-C); it then
answers what it accepted, and ends. SIGHUP, or "stspub reload", has it read its configuration again: a broken one changes
nothing.

With --dry-run every DNS write is refused where it would leave, and logged. All else is done: policies are served, certificates
ordered, the store written. So give it a store and ports of its own.`,
		Example: `  stspub serve --config /etc/stspub/stspub.toml
  stspub serve --config trial.toml --dry-run     # with a store and ports of its own`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			return daemon.Run(cmd.Context(), daemon.Options{
				ConfigPath: path, Env: os.Getenv, Version: version(), Built: built(), DryRun: dryRun,
				Log: newLogger(cmd.ErrOrStderr(), verbose), Reload: hangup,
				OnReady: giveBack,
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "refuse all DNS writes, and log what they would be")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}

// giveBack gives memory back to the system. Reading all domains and certificates leaves as much garbage as what is kept, as
// does looking at those that were under way when the last run ended; and serving makes little.
func giveBack() {
	debug.FreeOSMemory()
	time.AfterFunc(10*time.Second, debug.FreeOSMemory)
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "configuration `FILE`")
	_ = cmd.MarkFlagFilename("config", "toml") // it is only for completion
}

func newConfig() *cobra.Command {
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read a configuration, and say everything that is wrong with it",
		Long: `check reads a configuration with all that it names (secrets, lists of domains), starts nothing, and prints
every mistake with its place. The exit code is 1 if there is one.`,
		Example: "  stspub config check /etc/stspub/stspub.toml\n  stspub config check new.toml --json",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) > 0 {
				path = args[0]
			}
			conf, warnings, wrong := config.Load(path, os.Getenv)
			err := output(cmd, foundIn(warnings, wrong), func(out io.Writer) error {
				for _, w := range warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
				}
				if wrong != nil {
					_, err := fmt.Fprintln(cmd.ErrOrStderr(), wrong)
					return err
				}
				_, err := fmt.Fprintf(out, "%s is good: domains %d, MX sets %d, accounts %d\n",
					path, len(conf.Domains), len(conf.MXSets), len(conf.Accounts))
				return err
			})
			if err == nil && wrong != nil {
				err = errFault
			}
			return err
		},
	}
	jsonFlag(check, "")
	return group(&cobra.Command{Use: "config", Short: "Look at configurations", Example: "  stspub config check stspub.toml"}, check)
}

// found is what config check found.
type found struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"`
	Warnings []string `json:"warnings"`
}

func foundIn(warnings []config.Warning, err error) found {
	found := found{OK: err == nil, Problems: []string{}, Warnings: []string{}}
	for _, warning := range warnings {
		found.Warnings = append(found.Warnings, warning.String())
	}
	if err != nil {
		found.Problems = strings.Split(err.Error(), "\n")
	}
	return found
}
