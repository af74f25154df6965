package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
)

func (r *runner) doctorCommand() *cobra.Command {
	var resolve string
	c := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with this installation, and what mends it", Args: takes(),
		Example: `  sudo -u posthorn posthorn doctor
  posthorn doctor --server https://hooks.example.com --token-file token -o json`,
		Long: "Looks at the settings, store, disk, keys, certificate, identity providers and egress of\n" +
			"the installation on this machine, if there is one, and at the server, its clock and your\n" +
			"token. It changes nothing, and the service may run. What does not apply is skipped.\n" +
			"Exits with 1 when something is wrong.",
		RunE: func(cmd *cobra.Command, _ []string) error { return r.doctor(cmd, resolve) },
	}
	c.Flags().StringVar(&resolve, "resolve", "example.com", "`name` to ask the resolver for")
	return r.remoteFlags(r.storeFlags(c))
}

func (r *runner) doctor(cmd *cobra.Command, resolve string) error {
	cfg, err := config.Load(r.sources(cmd))
	checks := []doctor.Check{{Name: "settings", Run: func(context.Context) []doctor.Finding {
		return r.checkSettings(&cfg, err)
	}}}
	here := err != nil || r.installedHere(&cfg)
	if !r.installedHere(&cfg) && !cfg.Chosen(config.KeyEncryptionKeys) && onlyKeyMissing(&cfg, err) {
		here = false
	}
	if here {
		whole, pathErr := whole(cfg.StorePath)
		if pathErr != nil {
			return pathErr
		}
		cfg.StorePath = whole
		file := r.checkFile(cmd, whole)
		checks = append(checks, doctor.Check{Name: "store", Run: func(context.Context) []doctor.Finding { return file }})
		if len(file) == 0 {
			checks = append(checks, r.programs.Diagnose(cfg, resolve)...)
		}
	} else {
		checks[0].Run = func(context.Context) []doctor.Finding {
			return []doctor.Finding{doctor.Skip("there is no installation here: no settings file, and no store at %s", cfg.StorePath)}
		}
	}
	checks = append(checks, r.serverChecks(&cfg, here && err == nil)...)

	wrong, out := 0, r.list()
	err = doctor.Run(cmd.Context(), checks, func(f doctor.Finding) error {
		if f.State == doctor.Wrong {
			wrong++
		}
		if r.wantsTable() {
			return r.printFinding(f)
		}
		return out.add(toJSON(f), plain)
	})
	if err == nil && !r.wantsTable() {
		err = out.close("")
	}
	if err == nil && wrong > 0 {
		err = &fault{exit: ExitFailed, message: fmt.Sprintf("%d things are wrong.", wrong)}
		if wrong == 1 {
			err = &fault{exit: ExitFailed, message: "One thing is wrong."}
		}
	}
	return err
}

// installedHere reports whether the settings are about a service of this machine.
func (r *runner) installedHere(cfg *config.Config) bool {
	if cfg.File != "" || cfg.Chosen(config.KeyStore) {
		return true
	}
	_, err := os.Stat(cfg.StorePath)
	return err == nil
}

// onlyKeyMissing reports whether the settings have no other fault than that there
// is no key, which is so wherever no service is.
func onlyKeyMissing(cfg *config.Config, err error) bool {
	return err == nil || cfg.EncryptionKeys == "" && !strings.Contains(err.Error(), "\n")
}

func (r *runner) checkSettings(cfg *config.Config, err error) []doctor.Finding {
	if err == nil {
		return []doctor.Finding{doctor.Fine("they go together (%s)", firstOf(cfg.File, "no file"))}
	}
	var found []doctor.Finding
	for line := range strings.SplitSeq(err.Error(), "\n") {
		mend := "posthorn config check"
		if strings.HasPrefix(line, "POSTHORN_ENCRYPTION_KEYS is not set") {
			mend = "export POSTHORN_ENCRYPTION_KEYS=… (the service's own; for a new one: posthorn key generate)"
		}
		found = append(found, doctor.Fault(mend, "%s", line))
	}
	return found
}

// checkFile looks at a store's file from outside; nothing is wrong with one of a
// database.
func (r *runner) checkFile(cmd *cobra.Command, path string) []doctor.Finding {
	if config.IsPostgres(path) {
		return nil
	}
	if err := r.mayOpen(cmd, path); err != nil {
		f := faultOf(cmd.Context(), err)
		mend := f.hint
		if errors.Is(err, fs.ErrNotExist) {
			mend = "posthorn migrate --store sqlite:" + path
		}
		return []doctor.Finding{doctor.Fault(strings.TrimPrefix(mend, "Run it as that user: "), "%s", strings.TrimSuffix(f.message, "."))}
	}
	var found []doctor.Finding
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if info, err := os.Stat(name); err == nil && othersMayRead(info) {
			found = append(found, doctor.Fault("chmod 600 "+name, "others can read %s", name))
		}
	}
	return found
}

// ownServer is where the service of the settings is reached from here.
func ownServer(cfg *config.Config) string {
	if cfg.PublicURL() != "" {
		return cfg.PublicURL()
	}
	address := cfg.ListenHere()
	if address == "" {
		return defaultServer
	}
	scheme := "http"
	if cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + address
}

func (r *runner) printFinding(f doctor.Finding) error {
	word, tone := "ok", green
	switch f.State {
	case doctor.Wrong:
		word, tone = "WRONG", red
	case doctor.Skipped:
		word, tone = "-", plain
	}
	line := r.paint(r.Out, tone, fmt.Sprintf("%-5s", word)) + fmt.Sprintf("  %-17s  %s\n", f.Check, printable(f.What))
	if f.Mend != "" {
		line += fmt.Sprintf("%26s%s\n", "mend: ", printable(f.Mend))
	}
	_, err := fmt.Fprint(r.Out, line)
	return err
}
