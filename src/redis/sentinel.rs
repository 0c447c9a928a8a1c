//! Who the master is: all sentinels are asked, once a second and whenever a connection is in doubt,
//! and the answer with the highest configuration epoch counts. The client library asks only once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::connect::{Conn, ConnectSettings, open_sentinel};
use crate::error::ConnectError;
use crate::location::Server;

/// Pause between questions.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause after a doubt, so that a master that is down is not asked about without end.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Follows the master of one name.
pub(crate) struct MasterWatch {
    master: watch::Receiver<Option<Server>>,
    trouble: watch::Receiver<String>,
    name: String,
    now: Arc<Notify>,
}

impl MasterWatch {
    /// Starts asking, on the current runtime.
    pub(crate) fn start(
        settings: Arc<ConnectSettings>,
        sentinels: Vec<Server>,
        name: String,
    ) -> Self {
        let (master_sender, master) = watch::channel(None);
        let (trouble_sender, trouble) = watch::channel("not asked yet".to_owned());
        let now = Arc::new(Notify::new());
        let asker =
            Asker { settings, sentinels, name: name.clone(), conns: HashMap::new(), epoch_seen: 0 };
        tokio::spawn(asker.run(master_sender, trouble_sender, Arc::clone(&now)));
        MasterWatch { master, trouble, name, now }
    }

    /// The master as it changes.
    pub(crate) fn master(&self) -> watch::Receiver<Option<Server>> {
        self.master.clone()
    }

    /// The master now.
    pub(crate) fn current(&self) -> Result<Server, ConnectError> {
        self.master.borrow().clone().ok_or_else(|| ConnectError::NoMaster {
            master: self.name.clone(),
            detail: self.trouble.borrow().clone(),
        })
    }

    /// Asks again at once.
    pub(crate) fn ask_now(&self) {
        self.now.notify_one();
    }
}

struct Asker {
    settings: Arc<ConnectSettings>,
    sentinels: Vec<Server>,
    name: String,
    conns: HashMap<usize, Conn>,
    /// The highest configuration epoch so far: a sentinel that was cut off still tells of an
    /// earlier one.
    epoch_seen: u64,
}

impl Asker {
    async fn run(
        mut self,
        master: watch::Sender<Option<Server>>,
        trouble: watch::Sender<String>,
        now: Arc<Notify>,
    ) {
        loop {
            let mut best: Option<(u64, Server)> = None;
            for at in 0..self.sentinels.len() {
                match self.ask(at).await {
                    Ok((epoch, server)) => {
                        if best.as_ref().is_none_or(|(have, _)| epoch > *have) {
                            best = Some((epoch, server));
                        }
                    }
                    Err(error) => {
                        self.conns.remove(&at);
                        trouble.send_replace(error.to_string());
                    }
                }
            }
            if let Some((epoch, server)) = best.filter(|(epoch, _)| *epoch >= self.epoch_seen) {
                self.epoch_seen = epoch;
                master.send_if_modified(|have| {
                    let changed = have.as_ref() != Some(&server);
                    if changed {
                        tracing::info!(master = self.name, %server, "the redis master is here");
                        *have = Some(server);
                    }
                    changed
                });
            }
            tokio::time::sleep(PAUSE_MIN).await;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = now.notified() => {}
                () = master.closed() => return,
            }
        }
    }

    async fn ask(&mut self, at: usize) -> Result<(u64, Server), ConnectError> {
        let sentinel = &self.sentinels[at];
        let mut conn = match self.conns.get(&at) {
            Some(conn) => conn.clone(),
            None => {
                let opened = open_sentinel(&self.settings, sentinel).await?;
                self.conns.insert(at, opened.conn.clone());
                opened.conn
            }
        };
        let name = sentinel.to_string();
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("MASTER").arg(&self.name);
        let asked = cmd.query_async::<HashMap<String, String>>(&mut conn);
        let limit = self.settings.timeouts.connect;
        let fields = tokio::time::timeout(limit, asked)
            .await
            .map_err(|_| ConnectError::Timeout { server: name.clone(), millis: limit.as_millis() })?
            .map_err(|error| ConnectError::from_redis(&name, &error))?;
        let field = |key: &str| fields.get(key).map(String::as_str);
        let (Some(host), Some(port)) = (field("ip"), field("port").and_then(|p| p.parse().ok()))
        else {
            let detail = "the sentinel's answer holds no address".to_owned();
            return Err(ConnectError::Failed { server: name, detail });
        };
        let epoch = field("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok((epoch, Server::Tcp { host: host.to_owned(), port }))
    }
}
