package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// contexts are servers that the user named, with a token for each. The file holds
// secrets: it is readable by its owner only, and is refused when others may read it.
type contexts struct {
	// Current is used unless the command line or the environment names another.
	Current string          `json:"current"`
	All     []serverContext `json:"contexts"`

	path string
}

type serverContext struct {
	Name   string `json:"name"`
	Server string `json:"server"`
	Token  string `json:"token"`
	Tenant string `json:"tenant,omitempty"` // that a platform token speaks for
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// contextsPath is where the file is: XDG's place, or the system's own.
func (r *runner) contextsPath() (string, error) {
	if dir := r.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) { // a relative one is void, says the specification
		return filepath.Join(dir, "posthorn", "contexts.json"), nil
	}
	if home := r.getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "posthorn", "contexts.json"), nil
	}
	if dir := r.getenv("AppData"); dir != "" {
		return filepath.Join(dir, "posthorn", "contexts.json"), nil
	}
	return "", errors.New("there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is set")
}

// readContexts returns what was saved; nothing where there is no file.
func (r *runner) readContexts() (*contexts, error) {
	path, err := r.contextsPath()
	if err != nil {
		return nil, err
	}
	c := &contexts{path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	if othersMayRead(info) {
		return nil, (&fault{exit: ExitNotAllowed, message: fmt.Sprintf("Others can read %s, which holds tokens.", path)}).
			with("Take that right away, and make new tokens if others use this machine: chmod 600 %s", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if err := json.Unmarshal(b, c, json.RejectUnknownMembers(true)); err != nil {
		// What is wrong is not quoted: it may be a token.
		return nil, fmt.Errorf("%s is not what \"posthorn context\" writes; mend it, or remove it and add the contexts again", path)
	}
	return c, nil
}

// save replaces the file as a whole: a crash leaves the old one or the new one.
func (c *contexts) save() error {
	dir := filepath.Dir(c.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(c, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".contexts-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // when it could not be renamed
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.path)
}

func (c *contexts) find(name string) *serverContext {
	i := slices.IndexFunc(c.All, func(s serverContext) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &c.All[i]
}

func (c *contexts) names() (names []string) {
	for _, s := range c.All {
		names = append(names, s.Name)
	}
	return names
}

// context returns the saved context that holds: the one named by --context or
// POSTHORN_CONTEXT, which must be there, else the current one; nil for none.
func (r *runner) context() (*serverContext, error) {
	name := firstOf(r.remote.context, r.getenv("POSTHORN_CONTEXT"))
	if name == "" && r.getenv("XDG_CONFIG_HOME") == "" && r.getenv("HOME") == "" && r.getenv("AppData") == "" {
		return nil, nil
	}
	c, err := r.readContexts()
	if err != nil {
		return nil, err
	}
	if name == "" {
		return c.find(c.Current), nil
	}
	if s := c.find(name); s != nil {
		return s, nil
	}
	return nil, noContext(c, name)
}
