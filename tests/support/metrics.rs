//! Metrics of a running proxy: what it did, where its answers alone do not tell.

use super::gate::eventually;
use super::proxy::Proxy;

/// The sum of the samples of a metric whose labels have these values; 0 where there is none.
pub async fn metric(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = proxy.admin("/metrics").await.text();
    let ours = text.lines().filter(|line| {
        let (series, _) = line.split_once(' ').unwrap_or((line, ""));
        let (found, rest) = series.split_once('{').unwrap_or((series, ""));
        let has = |(label, value): &(&str, &str)| {
            let pair = format!("{label}=\"{value}\"");
            rest.trim_end_matches('}').split(',').any(|label| label == pair)
        };
        found == name && labels.iter().all(has)
    });
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until so many requests, over all proxies, have joined another one's fetch.
pub async fn waiting(proxies: &[&Proxy], n: usize) {
    eventually(&format!("{n} request(s) wait for another's fetch"), || async {
        let mut waiters = 0.0;
        for proxy in proxies {
            waiters += metric(proxy, "outrigger_coalesce_waiters_total", &[]).await;
        }
        (waiters >= n as f64).then_some(())
    })
    .await;
}
