package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// head is nginx without what costs time: one worker for the one CPU, nothing logged, the curve that the clients use anyway.
const head = `user root;
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
worker_rlimit_nofile 65536;
events { worker_connections 8192; multi_accept on; }
http {
  access_log off;
  default_type text/plain;
  charset utf-8;
  server_tokens off;
  server_names_hash_max_size 131072;
  server_names_hash_bucket_size 128;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  ssl_protocols TLSv1.3;
  ssl_ecdh_curve X25519;
  ssl_session_tickets off;
  ssl_session_cache off;
  ssl_buffer_size 4k;
  sendfile on; tcp_nopush on;
  server { listen {addr} ssl default_server backlog=4096; ssl_reject_handshake on; }
`

// fileBlock answers from a file, as the guides to MTA-STS have it.
const fileBlock = `  server { listen {addr} ssl; server_name {name}; ssl_certificate {file}; ssl_certificate_key {file}; root {root};
    location = /.well-known/mta-sts.txt { add_header Cache-Control no-store; add_header X-Content-Type-Options nosniff; } }
`

// block answers from the configuration, which is the fastest that nginx can.
const block = `  server { listen {addr} ssl; server_name {name}; ssl_certificate {file}; ssl_certificate_key {file};
    location = /.well-known/mta-sts.txt { add_header Cache-Control no-store; add_header X-Content-Type-Options nosniff; return 200 "{text}"; } }
`

// findNginx returns the path of nginx, and installs Debian's where it is missing.
func findNginx(ctx context.Context) (string, error) {
	find := func() string {
		for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		return ""
	}
	if path := find(); path != "" {
		return path, nil
	}
	for _, args := range [][]string{
		{"apt-get", "-o", "DPkg::Lock::Timeout=400", "update", "-q"},
		{"apt-get", "-o", "DPkg::Lock::Timeout=400", "install", "-q", "-y", "--no-install-recommends", "nginx-light"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // 1: start nothing
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("install nginx (%s): %w", strings.Join(args, " "), err)
		}
	}
	if path := find(); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("install nginx: it is not there afterwards")
}

// pemOf is a domain's certificate with its issuer's, and its key.
func pemOf(d domain) (chain, key []byte) {
	for _, der := range d.certificate.Chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: d.certificate.Key})
}

// prepareNginx fills a directory with one server block a domain, and returns the program to run.
func prepareNginx(w *world, binary, dir, addr string, inline bool) (program, error) {
	fill := strings.NewReplacer("{dir}", dir, "{addr}", addr)
	var config strings.Builder
	config.WriteString(fill.Replace(head))
	text := strings.ReplaceAll(w.policy.Text(), "\r\n", `\r\n`)
	for _, d := range w.domains {
		name := d.name.PolicyHost()
		file := filepath.Join(dir, name+".pem")
		chain, key := pemOf(d)
		if err := writeFile(file, slices.Concat(chain, key)); err != nil {
			return program{}, err
		}
		server, root := block, filepath.Join(dir, name)
		if !inline {
			server = fileBlock
			if err := os.MkdirAll(filepath.Join(root, ".well-known"), 0o755); err != nil {
				return program{}, fmt.Errorf("make the root of %s: %w", name, err)
			}
			if err := writeFile(filepath.Join(root, ".well-known", "mta-sts.txt"), []byte(w.policy.Text())); err != nil {
				return program{}, err
			}
		}
		config.WriteString(strings.NewReplacer("{addr}", addr, "{name}", name, "{file}", file, "{root}", root, "{text}", text).Replace(server))
	}
	config.WriteString("}\n")
	path := filepath.Join(dir, "nginx.conf")
	return program{
		name: "nginx", addr: addr, dir: dir, args: []string{binary, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", path},
	}, writeFile(path, []byte(config.String()))
}
