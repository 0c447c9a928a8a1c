//! A private authority that openssl makes, with a certificate for the server
//! and one for its clients.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::machine::tool;

const SETTINGS: &str = "[req]\ndistinguished_name = name\nprompt = no\n\
    x509_extensions = authority\n[name]\nCN = The authority of a test\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\n\
    keyUsage = critical, keyCertSign\nsubjectKeyIdentifier = hash\n";

/// The authority and what it has issued: `ca.pem`, `server.pem`, `server.key`,
/// `client.pem` and `client.key` in one folder.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    /// Makes an authority that nobody else trusts.
    pub fn new() -> Self {
        let authority = Self { dir: TempDir::new().expect("a temporary folder") };
        fs::write(authority.path("openssl.cnf"), SETTINGS).expect("written");
        authority.openssl("req -x509 -days 2 -keyout ca.key -out ca.pem");
        authority.issue("server", "DNS:localhost,IP:127.0.0.1");
        authority.issue("client", "DNS:client.test");
        authority
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The `tls` section of a client that trusts this authority and shows its
    /// client certificate.
    pub fn section(&self) -> String {
        format!(
            "{{caFile: {}, certFile: {}, keyFile: {}}}",
            self.path("ca.pem").display(),
            self.path("client.pem").display(),
            self.path("client.key").display()
        )
    }

    fn issue(&self, name: &str, names: &str) {
        fs::write(self.path("names.cnf"), format!("subjectAltName = {names}\n")).expect("written");
        self.openssl(&format!("req -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile names.cnf -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new(tool("openssl"));
        command.current_dir(self.dir.path()).args(arguments.split_whitespace());
        if arguments.starts_with("req") {
            let key = "-config openssl.cnf -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
            command.args(key.split(' '));
        }
        let output = command.output().expect("openssl runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {errors}");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
