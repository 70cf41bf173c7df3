//! The one place that chooses the cryptography of TLS.

/// Makes *ring* the process's cryptography for TLS. Clients that are made before have none and fail, so it is called first; calling
/// it again changes nothing.
pub fn install() {
    // An error says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
