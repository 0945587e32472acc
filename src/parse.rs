//! Parsing of packet headers with the `etherparse` crate (version 0.16), whose names are in this module.
//!
//! ```
//! use ringtap::Packet;
//! use ringtap::parse::{NetSlice, TransportSlice};
//!
//! fn describe(packet: &Packet<'_>) -> Option<String> {
//!     let headers = packet.parse().ok()?;
//!     let protocol = match headers.net? {
//!         NetSlice::Ipv4(ip) => ip.payload_ip_number(),
//!         NetSlice::Ipv6(ip) => ip.payload().ip_number,
//!         _ => return None,
//!     };
//!     let port = match headers.transport? {
//!         TransportSlice::Tcp(tcp) => tcp.destination_port(),
//!         TransportSlice::Udp(udp) => udp.destination_port(),
//!         _ => return Some(format!("protocol {}", protocol.0)),
//!     };
//!     Some(format!("protocol {}, port {port}", protocol.0))
//! }
//! ```

pub use etherparse::*;

use crate::packet::{LinkType, Packet, Tunnels};

impl<'a> Packet<'a> {
    /// Parses the headers of the packet. The types are in [`crate::parse`], which has an example.
    ///
    /// Parsing starts at Ethernet, or at IP if the link has no header. A VLAN tag that was stripped is not part
    /// of the bytes: [`vlan`](Self::vlan) returns it.
    ///
    /// # Errors
    /// Fails if a header is truncated or invalid; [`parse_lax`](Self::parse_lax) returns the headers before it.
    /// IPv4 with a total length of 0, which hosts write if the card does the segmentation, is an error here;
    /// [`parse_lax`](Self::parse_lax) uses the length of the frame instead.
    pub fn parse(&self) -> Result<SlicedPacket<'a>, err::packet::SliceError> {
        match self.behind_link() {
            None => SlicedPacket::from_ethernet(self.data()),
            Some(packet) => SlicedPacket::from_ip(packet),
        }
    }

    /// The IP packet, if no Ethernet header precedes it. It is empty if there is none.
    fn behind_link(&self) -> Option<&'a [u8]> {
        let link = self.dissected_as();
        let layers = self.layers(Tunnels::Outer).filter(|_| link != Some(LinkType::ETHERNET));
        let at = layers.map_or(usize::MAX, |layers| layers.network_offset());
        let is_ethernet = matches!(link, Some(LinkType::ETHERNET) | None);
        (!is_ethernet).then(|| self.data().get(at..).unwrap_or_default())
    }

    /// Parses the headers up to the first that is truncated or invalid.
    ///
    /// # Errors
    /// Fails if even the first header is incomplete.
    pub fn parse_lax(&self) -> Result<LaxSlicedPacket<'a>, err::LenError> {
        let Some(packet) = self.behind_link() else {
            return LaxSlicedPacket::from_ethernet(self.data());
        };
        // Anything but version 4 or 6 has no known header.
        let ip_type = match packet.first().map(|first| first >> 4) {
            Some(6) => ether_type::IPV6,
            _ => ether_type::IPV4,
        };
        Ok(LaxSlicedPacket::from_ether_type(ip_type, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{LinkLayer, PacketMeta};

    #[test]
    fn headers_are_found_behind_ethernet_and_without_it() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .single_vlan(5.try_into().unwrap())
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(53, 7)
            .write(&mut frame, b"payload")
            .unwrap();
        let ports = |data: &[u8], hardware| {
            let mut meta = PacketMeta::plain(data.len());
            meta.link = Some(LinkLayer { hardware, ..LinkLayer::sample() });
            let packet = Packet::new(data, meta);
            let strict = match packet.parse().ok()?.transport? {
                TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
                _ => return None,
            };
            let lax = packet.parse_lax().unwrap();
            assert!(matches!(lax.transport, Some(TransportSlice::Udp(_))));
            Some(strict)
        };
        assert_eq!(ports(&frame, libc::ARPHRD_ETHER), Some((53, 7)));
        assert_eq!(ports(&frame[18..], libc::ARPHRD_NONE), Some((53, 7)));
        let mut unsaid = frame.clone();
        unsaid[20..22].copy_from_slice(&[0, 0]);
        let unsaid = Packet::new(&unsaid, PacketMeta::plain(unsaid.len()));
        assert!(unsaid.parse().is_err());
        let whole = unsaid.parse_lax().unwrap();
        assert!(
            matches!(whole.transport, Some(TransportSlice::Udp(udp)) if udp.payload() == b"payload")
        );
        let cut = Packet::new(&frame[..30], PacketMeta::plain(30));
        assert!(cut.parse().is_err());
        assert!(cut.parse_lax().unwrap().vlan.is_some());
        assert!(Packet::new(&[], PacketMeta::plain(0)).parse_lax().is_err());
    }
}
