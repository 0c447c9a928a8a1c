//! Keeps the webhook's certificates: reads what the replicas share, renews what is due, and writes the
//! authorities into the webhook configuration before a certificate is served that needs them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::cluster::{Bundles, Cluster, ClusterError, Stored};
use super::error::CertificateError;
use super::material::{CertificateLifetimes, Due, Material, split_pem};
use super::tls::Resolver;

/// The time. It is passed in, so that tests can cover years.
pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Attempts of one pass: others may write between a read and a write.
const ATTEMPTS: usize = 5;

/// What is left to do after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing until something is due or changes.
    Settled,
    /// A certificate waits until the API server has had time to learn of its authority.
    Soon,
}

/// The keeper of one replica, with what it knew when its last pass ended.
pub(super) struct Keeper<C> {
    cluster: C,
    resolver: Arc<Resolver>,
    names: Vec<String>,
    lifetimes: CertificateLifetimes,
    /// What the Secret held at the last pass: a deleted one is written again from it.
    material: Option<Material>,
    /// What new connections are served with.
    served: Option<Material>,
    /// The authorities that were trusted when the last pass ended.
    trusted: Vec<String>,
}

impl<C: Cluster> Keeper<C> {
    pub fn new(
        cluster: C,
        resolver: Arc<Resolver>,
        names: Vec<String>,
        lifetimes: CertificateLifetimes,
    ) -> Self {
        let (material, served, trusted) = (None, None, Vec::new());
        Keeper { cluster, resolver, names, lifetimes, material, served, trusted }
    }

    /// What new connections are served with.
    #[cfg(test)]
    pub fn served(&self) -> Option<&Material> {
        self.served.as_ref()
    }

    /// Whether there is a certificate to serve.
    pub fn is_serving(&self) -> bool {
        self.served.is_some()
    }

    /// Reads, renews, writes and serves once.
    pub async fn pass(&mut self, now: SystemTime) -> Result<Next, ClusterError> {
        for _ in 0..ATTEMPTS {
            match self.attempt(now).await {
                Err(ClusterError::Conflict) => {}
                other => return other,
            }
        }
        Err(ClusterError::Refused(format!("others wrote in between {ATTEMPTS} times in a row")))
    }

    async fn attempt(&mut self, now: SystemTime) -> Result<Next, ClusterError> {
        // The order matters: the last write names the version of the first read, so that a replica
        // with an old Secret cannot remove the trust in a new authority.
        let bundles = self.cluster.bundles().await?;
        let stored = self.cluster.secret().await?;
        let material = self.shared(stored.as_ref(), &bundles, now).await?;
        let wanted = material.bundle(now);
        let in_place = bundles.entries.iter().all(|entry| entry.pem == wanted);
        if !in_place {
            self.cluster.write_bundle(&bundles, &wanted).await?;
            tracing::info!(
                "the API server was told which authorities sign the webhook's certificate"
            );
        }
        let next = self.serve(&material, &bundles);
        self.trusted = if in_place { trusted(&bundles) } else { split_pem(&wanted) };
        Ok(next)
    }

    /// The keys and certificates that replicas share, renewed or made if necessary.
    async fn shared(
        &mut self,
        stored: Option<&Stored>,
        bundles: &Bundles,
        now: SystemTime,
    ) -> Result<Material, ClusterError> {
        let read = stored.map(|stored| Material::from_data(&stored.data));
        if let (Some(Err(error)), Some(stored)) = (&read, stored)
            && !stored.data.is_empty()
        {
            let reason = error.to_string();
            tracing::warn!(
                reason,
                "the Secret with the webhook's certificate is not valid; it is replaced"
            );
        }
        let read = read.and_then(Result::ok);
        // A Secret that was deleted or broken is written again with authorities that are trusted.
        let known = read.clone().or_else(|| self.material.clone());
        let wanted = self
            .renewed(known, bundles, now)
            .map_err(|error| ClusterError::Refused(error.to_string()))?;
        if read.as_ref() != Some(&wanted) {
            self.cluster.write_secret(stored, &wanted.to_data()).await?;
            tracing::info!("the Secret with the webhook's certificate was written");
        }
        self.material = Some(wanted.clone());
        Ok(wanted)
    }

    fn renewed(
        &self,
        known: Option<Material>,
        bundles: &Bundles,
        now: SystemTime,
    ) -> Result<Material, CertificateError> {
        let Some(known) = known else {
            let fresh = Material::fresh(&self.names, self.lifetimes, now)?;
            let trusted = trusted(bundles).concat();
            return Ok(fresh.trusting(&trusted, now));
        };
        let due = known.due(&self.names, now);
        let renewed = known.clone().renewed(due, &self.names, self.lifetimes, now);
        // An authority that another tool has made may not be able to sign.
        renewed.or_else(|_| known.renewed(Due::Authority, &self.names, self.lifetimes, now))
    }

    /// Serves the certificate, once the API server trusts its authority. The API server learns of a
    /// change a moment later, so that what this pass has written counts from the next one on.
    fn serve(&mut self, material: &Material, bundles: &Bundles) -> Next {
        if self.served.as_ref().is_some_and(|served| served.is_same_certificate(material)) {
            return Next::Settled;
        }
        let now = trusted(bundles);
        let heard = |all: &[String]| all.iter().any(|pem| pem == material.authority());
        // With no bundle at all there is no client yet, and nothing to wait for.
        let first = bundles.entries.iter().all(|entry| entry.pem.is_empty());
        let may = (first && self.served.is_none()) || (heard(&self.trusted) && heard(&now));
        if !may {
            return Next::Soon;
        }
        match material.certified_key() {
            Ok(key) => {
                self.resolver.set(key);
                self.served = Some(material.clone());
                let end = material.expires().ok();
                let end = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
                let expires_unix = end.map(|end| end.as_secs());
                tracing::info!(expires_unix, "a new certificate is served");
                Next::Settled
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(reason, "the new certificate cannot be served");
                Next::Soon
            }
        }
    }
}

/// The authorities that every webhook of ours trusts.
fn trusted(bundles: &Bundles) -> Vec<String> {
    let mut sets = bundles.entries.iter().map(|entry| split_pem(&entry.pem));
    let mut common = sets.next().unwrap_or_default();
    for set in sets {
        common.retain(|pem| set.contains(pem));
    }
    common
}

/// Runs pass after pass. A problem is logged once when it begins, and once when it is over.
pub(super) async fn keep<C: Cluster>(mut keeper: Keeper<C>, clock: Clock, interval: Duration) {
    let settle = interval.min(Duration::from_secs(5));
    let mut trouble: Option<ClusterError> = None;
    loop {
        let pause = match keeper.pass(clock()).await {
            Ok(next) => {
                if trouble.take().is_some() {
                    tracing::info!("the webhook's certificate is looked after again");
                }
                if next == Next::Soon { settle } else { interval }
            }
            Err(problem) => {
                log_problem(trouble.as_ref(), &problem, keeper.is_serving());
                trouble = Some(problem);
                if keeper.is_serving() { interval } else { settle }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn log_problem(before: Option<&ClusterError>, problem: &ClusterError, serving: bool) {
    let known = match (before, problem) {
        (Some(ClusterError::Unreachable(_)), ClusterError::Unreachable(_)) => true,
        (before, problem) => before == Some(problem),
    };
    if known {
        return;
    }
    let effect = if serving {
        "the certificate in use is served on, but not renewed"
    } else {
        "there is no certificate to serve yet"
    };
    match problem {
        ClusterError::Unreachable(reason) | ClusterError::Refused(reason) => {
            tracing::warn!(reason, "the Kubernetes API does not do what is needed; {effect}");
        }
        ClusterError::Conflict => {}
    }
}
