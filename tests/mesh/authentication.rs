//! Whom the control plane lets in.

use tonic::{Code, Status};

use crate::ads::{Ads, NAMES, channel, first, node, node_id, node_with, tls_channel};
use crate::control_plane::{ControlPlane, Options, Tls, Token};

async fn refused(result: Result<Ads, Status>) -> Status {
    match result {
        Err(status) => status,
        Ok(mut ads) => ads.try_next().await.expect_err("a refusal"),
    }
}

#[tokio::test]
async fn over_tls_the_token_decides() {
    let plane = Options::default().tls().token("secret", "bookinfo", "reviews").start().await;
    let ca = plane.ca_pem();
    let channel = tls_channel(plane.addr(), &ca).await.unwrap();
    let open =
        |namespace: &str, token| Ads::on(channel.clone(), first(node(namespace), &NAMES), token);
    open("bookinfo", Some("secret")).await.unwrap().take().await;
    for token in [None, Some("other")] {
        let status = refused(open("bookinfo", token).await).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    let status = refused(open("shop", Some("secret")).await).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().starts_with("authorization failed: no identities"), "{status:?}");
    let id = node_id("bookinfo");
    let claims = [("NAMESPACE", "bookinfo"), ("SERVICE_ACCOUNT", "ratings")];
    let other = first(node_with(&id, &[], &claims), &NAMES);
    let status = refused(Ads::on(channel.clone(), other, Some("secret")).await).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    plane.set_token(Some(Token {
        value: "rotated".to_owned(),
        namespace: "bookinfo".to_owned(),
        service_account: "reviews".to_owned(),
    }));
    let status = refused(open("bookinfo", Some("secret")).await).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    open("bookinfo", Some("rotated")).await.unwrap().take().await;
    assert_eq!(plane.streams_refused(), 3);
}

#[tokio::test]
async fn its_certificate_is_from_its_own_authority() {
    let plane = Options::default().tls().start().await;
    assert!(tls_channel(plane.addr(), &Tls::new().ca_pem).await.is_err());
    assert!(tls_channel(plane.addr(), &plane.ca_pem()).await.is_ok());
}

#[tokio::test]
async fn nobody_gets_in_before_it_is_ready() {
    let plane = Options::default().not_ready().start().await;
    let open = || Ads::with(&plane, first(node("bookinfo"), &NAMES));
    let status = refused(open().await).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "server is not ready to serve discovery information");
    plane.ready(true);
    open().await.unwrap().take().await;
}

#[tokio::test]
async fn a_node_has_an_id_of_four_parts() {
    let plane = ControlPlane::start().await;
    for (id, why) in [
        ("", "missing node information"),
        ("sidecar~127.0.0.6~reviews", "missing parts in the service node"),
        ("cache~127.0.0.6~reviews.bookinfo~bookinfo.svc", "invalid node type"),
        ("sidecar~here~reviews.bookinfo~bookinfo.svc", "no valid IP address"),
    ] {
        let request = first(node_with(id, &[], &[]), &NAMES);
        let status = refused(Ads::with(&plane, request).await).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{id}: {status:?}");
        assert!(status.message().contains(why), "{id}: {status:?}");
    }
    let mut request = first(node("bookinfo"), &NAMES);
    request.node = None;
    let channel = channel(plane.addr()).await;
    let status = refused(Ads::on(channel, request, None).await).await;
    assert_eq!(status.message(), "missing node information");
    assert!(plane.connections().is_empty());
}

#[tokio::test]
async fn the_namespace_comes_from_the_metadata_or_the_id() {
    let plane = ControlPlane::start().await;
    let id = node_id("bookinfo");
    let mut ads = Ads::with(&plane, first(node_with(&id, &[], &[]), &NAMES)).await.unwrap();
    ads.take().await;
    assert_eq!(plane.connection(&id).unwrap().node.namespace, "bookinfo");
}
