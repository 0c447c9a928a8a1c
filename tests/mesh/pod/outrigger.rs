//! Outrigger in a pod: the real binary, under its own user.

use std::path::Path;

use crate::control_plane::proto::ECDS;
use crate::support::{Client, Response, binary, eventually, within};

use super::process::{Process, in_reach};
use super::{CONTROL_PLANE, OUTRIGGER_USER, Place, Pod, World};

/// What its admin port is in a pod.
const ADMIN: &str = "127.0.0.1:15490";

impl Place {
    /// Its listener.
    fn mode(&self) -> &'static str {
        if self.app == "reviews" { "inbound" } else { "outbound" }
    }
}

impl World {
    /// Starts Outrigger in a pod, for the callee as an inbound cache and for the
    /// caller as an outbound one, until it is ready and has its policy.
    pub async fn start_outrigger(&self, pod: &Pod) -> Process {
        let mut process = launch(pod, self.folder.path());
        let id = pod.place.outrigger_id();
        self.plane.until("Outrigger takes policy", &id, |c| c.watch(ECDS).acks > 0).await;
        let process_ref = &mut process;
        let deadline = std::time::Instant::now() + crate::support::PATIENCE;
        while self.admin(pod, "GET", "/readyz").await.is_none_or(|answer| answer.status != 200) {
            assert!(process_ref.runs(), "it ended:\n{}", process_ref.log());
            assert!(std::time::Instant::now() < deadline, "not ready:\n{}", process_ref.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        process
    }

    /// A request to the admin port, from within the pod.
    pub async fn admin(&self, pod: &Pod, method: &str, path: &str) -> Option<Response> {
        let stream = pod.net.connect(ADMIN.parse().expect("an address")).await.ok()?;
        let mut client = Client::over(stream);
        client.request(method, path, &[]).await;
        within(path, client.try_response(method)).await.ok()
    }

    /// Waits until the cache of a pod answers GETs for a path through both Envoys:
    /// ten times in a row, since each worker of an Envoy learns by itself that the
    /// cache is well.
    pub async fn cache_answers(&self, path: &str) {
        eventually("responses from the cache", || async move {
            for _ in 0..10 {
                let response = self.try_request("GET", path, &[]).await?;
                let status = response.header("cache-status").unwrap_or_default();
                status.contains("hit").then_some(())?;
            }
            Some(())
        })
        .await;
    }
}

fn launch(pod: &Pod, folder: &Path) -> Process {
    let Place { address, app, namespace } = pod.place;
    let labels = folder.join(format!("{app}-labels"));
    std::fs::write(&labels, format!("app=\"{app}\"\n")).expect("the labels are written");
    let state = folder.join(format!("{app}-state"));
    std::fs::create_dir_all(&state).expect("a folder for the state");
    let owner = Some(OUTRIGGER_USER);
    std::os::unix::fs::chown(&state, owner, owner).expect("the folder is its own");
    let (host, port) = CONTROL_PLANE;
    let environment = [
        ("OUTRIGGER_MODE", pod.place.mode().to_owned()),
        ("OUTRIGGER_XDS", format!("grpc://{host}:{port}")),
        ("OUTRIGGER_STATE_DIR", state.display().to_string()),
        ("OUTRIGGER_POD_LABELS", labels.display().to_string()),
        ("POD_NAME", format!("{app}-1")),
        ("POD_NAMESPACE", namespace.to_owned()),
        ("INSTANCE_IP", address.to_owned()),
        ("SERVICE_ACCOUNT", app.to_owned()),
    ];
    let name = format!("outrigger-{app}");
    let program = in_reach(folder, "outrigger", &binary());
    let args = ["run".to_owned()];
    Process::start(&pod.net, OUTRIGGER_USER, folder, &name, &program, &args, &environment)
}
