package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// AccountFrom makes an account that stands in no file, of the keys of an [account.NAME] table and their values; a secret is
// there itself, by its key without the ending "_file" or "_env". It checks what [Load] checks. The error names each mistake
// as "key: what is wrong", and holds no secret.
func AccountFrom(name, provider string, values map[string]string) (Account, error) {
	l := &loader{env: func(key string) string { return values[strings.ToLower(key)] }}
	t := accountTable{Line: 1, Provider: text{v: provider, line: 1}}
	fields := fieldsOf(reflect.TypeFor[accountTable]())
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := text{v: values[key], line: 1}
		field, known := fields[key]
		if env, secret := fields[key+"_env"]; secret {
			field, known, value.v = env, true, strings.ToUpper(key)
		}
		if !known || key == "provider" || strings.HasSuffix(key, "_file") || strings.HasSuffix(key, "_env") {
			errs = append(errs, fmt.Errorf("%s: unknown key", key))
			continue
		}
		reflect.ValueOf(&t).Elem().Field(field).Set(reflect.ValueOf(value))
	}
	l.doc = &document{Accounts: map[string]accountTable{name: t}}
	l.accounts()
	for _, p := range l.problems {
		errs = append(errs, errors.New(withoutFile(name, p.Problem)))
	}
	return l.cfg.Accounts[name], errors.Join(errs...)
}

// withoutFile puts a problem into words for who has no file.
func withoutFile(name string, p Problem) string {
	key := strings.TrimPrefix(p.Key, tableKey("account", name)+".")
	bare := strings.TrimSuffix(strings.TrimSuffix(key, "_file"), "_env")
	switch {
	case key == p.Key:
		return "name: " + p.Text
	case strings.HasPrefix(p.Text, "missing;"):
		return bare + ": missing"
	case strings.HasSuffix(key, "_env") && strings.HasPrefix(p.Text, "environment variable"):
		return bare + ": is no secret; write it as one line of ASCII without spaces"
	}
	return bare + ": " + p.Text
}
