package store

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// settingsDocument is settings as they are stored: the members that this version
// knows, then those of a later one.
type settingsDocument struct {
	posthorn.Settings
	Rest jsontext.Value `json:",embed"`
}

// EncodeSettings writes settings as they are stored.
func EncodeSettings(s *posthorn.Settings) (string, error) {
	b, err := json.Marshal(settingsDocument{*s, jsontext.Value(s.Unknown)})
	if err != nil {
		return "", fmt.Errorf("store: write settings: %w", err)
	}
	return string(b), nil
}

// DecodeSettings is the reverse of [EncodeSettings].
func DecodeSettings(text []byte) (posthorn.Settings, error) {
	var d settingsDocument
	if err := json.Unmarshal(text, &d); err != nil {
		return posthorn.Settings{}, fmt.Errorf("store: read settings: %w", err)
	}
	d.Unknown = string(d.Rest)
	return d.Settings, nil
}
