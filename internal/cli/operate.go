package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/secretbox"
)

func (r *runner) serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "serve", Short: "Run the service", Args: takes(),
		Example: `  export POSTHORN_ENCRYPTION_KEYS=$(posthorn key generate)   # once; keep it
  posthorn serve --listen 127.0.0.1:8420 --store sqlite:./posthorn.db`,
		Long: "Runs until it gets SIGTERM or SIGINT, then ends what is in flight; a second\n" +
			"signal ends it at once. Each flag can be an environment variable\n" +
			"(--ops-listen is POSTHORN_OPS_LISTEN) or a key of the settings file (ops-listen).",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.serves = true
			cfg, err := config.Load(r.sources(cmd))
			if err != nil {
				return settingsFault(err)
			}
			if cfg.StorePath, err = whole(cfg.StorePath); err != nil { // logs and errors name the whole path
				return err
			}
			return r.programs.Serve(cmd.Context(), cfg, r.Out, r.Err)
		},
	}
	config.AddFlags(c.Flags(), config.Settings(false)...)
	r.configFlag(c)
	return c
}

func (r *runner) devCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "dev", Short: "Try it: a server with a demo tenant, a receiver and sample events", Args: takes(),
		Example: `  posthorn dev
  posthorn dev --reset --samples 1s`,
		Long: "Starts a service that needs no set-up and shows each delivery to a receiver of\n" +
			"its own. It keeps its data between runs and listens on this machine only. Ctrl-C\n" +
			"ends it. A settings file is read only if --config names it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.serves = true
			src := r.sources(cmd)
			src.File = r.configFile // not POSTHORN_CONFIG: that may be a production's
			cfg, err := config.LoadDev(src)
			if err != nil {
				return settingsFault(err)
			}
			return r.programs.Dev(cmd.Context(), cfg, r.Out, r.Err)
		},
	}
	config.AddFlags(c.Flags(), config.Settings(true)...)
	c.Flags().StringVar(&r.configFile, "config", "", "settings `file`")
	return c
}

func (r *runner) configCommand() *cobra.Command {
	check := &cobra.Command{
		Use: "check", Short: "Say what is wrong with the settings, and print them", Args: takes(),
		Example: "  posthorn config check --config /etc/posthorn/posthorn.yaml",
		Long:    "Reads the settings as \"posthorn serve\" would and starts nothing. Secrets are masked.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(r.sources(cmd))
			if err != nil {
				return settingsFault(err)
			}
			out := r.list("SETTING", "VALUE", "FROM")
			for _, s := range config.Settings(false) {
				item := toJSON(struct {
					Name  string `json:"name"`
					Value string `json:"value"`
					From  string `json:"from"`
				}{s.Name, cfg.Shown(s.Name), cfg.Origin(s.Name)})
				if err := out.add(item, plain, s.Name, cfg.Shown(s.Name), cfg.Origin(s.Name)); err != nil {
					return err
				}
			}
			if err := out.close(""); err != nil {
				return err
			}
			r.say("The settings are fine.")
			return nil
		},
	}
	config.AddFlags(check.Flags(), config.Settings(false)...)
	c := r.group("config", "", "Check the settings of \"posthorn serve\"", "  posthorn config check", check)
	r.configFlag(c)
	return c
}

func (r *runner) migrateCommand() *cobra.Command {
	return r.storeFlags(&cobra.Command{
		Use: "migrate", Short: "Make the store, or bring it to this version's schema", Args: takes(),
		Example: "  posthorn migrate --store sqlite:/var/lib/posthorn/posthorn.db",
		Long:    "\"posthorn serve\" does the same when it starts. The service must not run.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := r.storePath(cmd)
			if err != nil {
				return err
			}
			from, to, err := r.programs.Migrate(cmd.Context(), path)
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(toJSON(struct {
					Path string `json:"path"`
					From int64  `json:"from"`
					To   int64  `json:"to"`
				}{config.ShownStore(path), from, to}))
			}
			path = config.ShownStore(path)
			switch from {
			case to:
				r.say("%s has schema %d, which is the newest.", path, to)
			case 0:
				r.say("%s is made with schema %d.", path, to)
			default:
				r.say("%s went from schema %d to %d.", path, from, to)
			}
			return nil
		},
	})
}

func (r *runner) keyCommand() *cobra.Command {
	var id string
	generate := &cobra.Command{
		Use: "generate", Short: "Print a new encryption key, alone", Args: takes(),
		Example: `  posthorn key generate
  posthorn key generate --id k2            # to rotate: POSTHORN_ENCRYPTION_KEYS=k2:…,k1:…`,
		Long: "Prints id:base64 for POSTHORN_ENCRYPTION_KEYS. Endpoint secrets are encrypted with\n" +
			"it: keep a copy, without it they are lost. The first key encrypts, all decrypt.",
		RunE: func(*cobra.Command, []string) error {
			if !secretbox.ValidID(id) {
				return usage("--id %q is not a key's id.", id).with("It has 1 to 32 letters, digits, '_' and '-'.")
			}
			key := secretbox.Generate(id)
			if !r.wantsTable() {
				return r.printOne(toJSON(struct {
					Key string `json:"key"`
				}{key}))
			}
			_, err := fmt.Fprintln(r.Out, key)
			return err
		},
	}
	generate.Flags().StringVar(&id, "id", "k1", "the key's `id`; each key needs one of its own")
	return r.group("key", "keys", "Make and change the keys that encrypt endpoint secrets", "  posthorn key generate", generate, r.keyRotate())
}

func (r *runner) keyRotate() *cobra.Command {
	return r.storeFlags(&cobra.Command{
		Use: "rotate", Short: "Seal what is stored with the first key, so that the others can go", Args: takes(),
		Example: `  POSTHORN_ENCRYPTION_KEYS=k2:…,k1:… posthorn key rotate --store sqlite:/var/lib/posthorn/posthorn.db`,
		Long: "Before it, put the new key before the old one and restart the service; after it,\n" +
			"take the old one away and restart again. The keys come from\n" +
			"POSTHORN_ENCRYPTION_KEYS or the settings file, as for \"posthorn serve\", which may\n" +
			"run meanwhile. It may be repeated: what the first key has sealed is left alone.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, keys, err := config.LoadKeys(r.sources(cmd))
			if err != nil {
				return settingsFault(err)
			}
			if path, err = whole(path); err != nil {
				return err
			}
			if err := r.mayOpen(cmd, path); err != nil {
				return err
			}
			secrets, answers, err := r.programs.RotateKeys(cmd.Context(), path, keys)
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(toJSON(struct {
					Secrets int `json:"secrets"`
					Answers int `json:"answers"`
				}{secrets, answers}))
			}
			r.say("Sealed anew: %d endpoint secrets, %d remembered answers. The first key opens everything now; the others are not needed any more.", secrets, answers)
			return nil
		},
	})
}
