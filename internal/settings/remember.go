package settings

import (
	"errors"
	"io/fs"
	"os"

	"github.com/goccy/go-yaml"
)

// Remember adds what login needs of a newly enrolled device to a file, as far
// as it says nothing of that yet: which device, and which certificates. What a
// person wrote there stays as it is, comments too. Where there is no file it
// makes one, if there are CAs to name in it. It reports whether it wrote.
func Remember(path string, s Settings) (bool, error) {
	have, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if len(s.CAs) == 0 {
			return false, nil
		}
		return true, Save(path, &s)
	}
	if err != nil {
		return false, err
	}
	var missing Settings
	if have.Device == (Device{}) {
		missing.Device = s.Device
	}
	if len(have.Certificates) == 0 {
		missing.Certificates = s.Certificates
	}
	if missing.Device == (Device{}) && len(missing.Certificates) == 0 {
		return false, nil
	}
	text, err := yaml.Marshal(struct {
		Device       Device        `yaml:"device,omitempty"`
		Certificates []Certificate `yaml:"certificates,omitempty"`
	}{missing.Device, missing.Certificates})
	if err != nil {
		return false, err
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if n := len(before); n > 0 && before[n-1] != '\n' {
		before = append(before, '\n')
	}
	return true, replace(path, append(before, text...))
}

// replace puts another text in a file's place, if it can be read as settings.
func replace(path string, text []byte) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return err
	}
	if _, err := Load(temp); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}
