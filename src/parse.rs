//! A packet's headers, by the crate `etherparse`.

pub use etherparse::*;

use crate::packet::Packet;

impl<'a> Packet<'a> {
    /// Its headers, as far as they are whole; see [`crate::parse`], which is the crate `etherparse`.
    ///
    /// Of Ethernet, or of IP where its link has no header. A tag that was stripped is not in the bytes:
    /// [`vlan`](Self::vlan) has it.
    ///
    /// # Errors
    /// Where a header is cut or makes no sense; [`parse_lax`](Self::parse_lax) gives what is before it. IPv4 with a total
    /// length of 0, which hosts write if the card segments, is an error here; [`parse_lax`](Self::parse_lax) takes the frame's
    /// length.
    pub fn parse(&self) -> Result<SlicedPacket<'a>, err::packet::SliceError> {
        match self.network_at() {
            None => SlicedPacket::from_ethernet(self.data()),
            Some(at) => SlicedPacket::from_ip(self.data().get(at..).unwrap_or_default()),
        }
    }

    /// Its headers up to where they are cut or make no sense.
    ///
    /// # Errors
    /// Where not even the first one is whole.
    pub fn parse_lax(&self) -> Result<LaxSlicedPacket<'a>, err::LenError> {
        let Some(at) = self.network_at() else {
            return LaxSlicedPacket::from_ethernet(self.data());
        };
        let packet = self.data().get(at..).unwrap_or_default();
        // What is neither version 4 nor 6 has no header that is known.
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
