//! The Redis of the chart, for trials: one password in all places, kept over upgrades, and few who may connect.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_test_support::{free_port, tool};
use serde_json::{Value, json};

use crate::apiserver::ApiServer;
use crate::helm::{NAMESPACE, documents, find, objects};
use crate::judge::{self, RELEASES};
use crate::pods;

const REDIS: &str = "or-outrigger-redis";

fn values() -> Value {
    json!({"redis": {"deploy": {"enabled": true, "workloadNamespaces": ["shop", "cart"]}}})
}

/// The Secrets, by namespace.
fn secret<'a>(objects: &'a [Value], namespace: &str) -> &'a Value {
    let ours = |o: &&Value| o["kind"] == "Secret" && o["metadata"]["namespace"] == namespace;
    &objects.iter().find(ours).unwrap_or_else(|| panic!("none in {namespace}"))["stringData"]
}

#[test]
fn every_namespace_gets_the_url_and_only_ours_the_rest() {
    let objects = objects(&values());
    let own = secret(&objects, NAMESPACE);
    let password = own["password"].as_str().unwrap();
    assert!(password.len() >= 32 && password.chars().all(|c| c.is_ascii_alphanumeric()));
    let url = format!("redis://:{password}@{REDIS}.{NAMESPACE}.svc:6379");
    for namespace in ["shop", "cart"] {
        assert_eq!(*secret(&objects, namespace), json!({"url": url}));
    }
    assert_eq!(own["url"], url);
    let policy = &find(&objects, "NetworkPolicy", REDIS)["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    let from = &policy["ingress"][0]["from"][0]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(from["values"], json!(["shop", "cart", NAMESPACE]));
    assert!(policy["egress"].is_null(), "it connects to nobody");
    let deployment = &find(&objects, "Deployment", REDIS)["spec"];
    assert_eq!(policy["podSelector"], deployment["selector"]);
    assert_eq!(
        (&deployment["replicas"], &deployment["strategy"]["type"]),
        (&json!(1), &json!("Recreate"))
    );
    pods::check(&deployment["template"]["spec"], &["redis"]);
    judge::all_valid(&objects, &RELEASES);
}

#[test]
fn the_password_is_kept_over_upgrades() {
    let password = |manifest: &str| {
        let objects = documents(manifest);
        secret(&objects, NAMESPACE)["password"].as_str().unwrap().to_owned()
    };
    let first = ApiServer::start(Vec::new()).install(&values()).0;
    let again = ApiServer::start(Vec::new()).install(&values()).0;
    assert_ne!(password(&first), password(&again), "made up for each installation");
    // "kept" in Base64, as the API server hands it out.
    let there = json!({"apiVersion": "v1", "kind": "Secret", "data": {"password": "a2VwdA=="},
                       "metadata": {"name": REDIS, "namespace": NAMESPACE, "labels":
                           {"app.kubernetes.io/managed-by": "Helm"},
                           "annotations": {"meta.helm.sh/release-name": "or",
                                           "meta.helm.sh/release-namespace": NAMESPACE}}});
    let kept = documents(&ApiServer::start(vec![there]).install(&values()).0);
    assert_eq!(secret(&kept, NAMESPACE)["password"], "kept");
    assert_eq!(secret(&kept, "shop")["url"], format!("redis://:kept@{REDIS}.{NAMESPACE}.svc:6379"));
}

/// A server with the chart's own command line and configuration.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(folder: &std::path::Path, objects: &[Value]) -> Self {
        let configuration = folder.join("redis.conf");
        let text = secret(objects, NAMESPACE)["redis.conf"].as_str().unwrap();
        std::fs::write(&configuration, text).unwrap();
        let container =
            &find(objects, "Deployment", REDIS)["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["command"], json!(["redis-server", "/etc/redis/redis.conf"]));
        let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
        let port = free_port();
        let child = Command::new(tool("redis-server"))
            .arg(&configuration)
            .args(args)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        Server { child, port }
    }

    /// One command, and the first line of the answer.
    fn ask(&self, commands: &str, answers: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.write_all(commands.as_bytes()).unwrap();
        let lines = BufReader::new(stream).lines().take(answers);
        lines.map(|line| line.unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_redis_takes_its_command_line() {
    let objects = objects(&values());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &objects);
    assert!(server.ask("PING\r\n", 1)[0].starts_with("-NOAUTH"));
    let password = secret(&objects, NAMESPACE)["password"].as_str().unwrap();
    let ask = |name: &str| {
        let said = server.ask(&format!("AUTH {password}\r\nCONFIG GET {name}\r\n"), 6);
        assert_eq!(said[0], "+OK");
        said[5].clone()
    };
    assert_eq!(ask("maxmemory"), (192 << 20).to_string());
    assert_eq!(ask("maxmemory-policy"), "allkeys-lfu");
    assert_eq!(ask("save"), "");
    assert_eq!(ask("appendonly"), "no");
}
