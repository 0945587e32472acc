//! Accessors shared by all streams of flows.

/// Implements the accessors shared by all streams of flows, given the path of the stream's table.
macro_rules! accessors {
    ($stream:ident<St, B, E, S $(, $more:ident)*>, $($table:ident).+ $(, $key:path)?) => {
        impl<St, B, E, S $(, $more)*> $stream<St, B, E, S $(, $more)*>
        where
            B: FlowSource,
            E: FlowExtractor,
            $(E::Key: $key,)?
            S: Send + 'static,
        {
            /// Returns the table of flows.
            pub fn table(&self) -> &crate::flow::FlowTable<E, S> {
                &self.$($table).+
            }

            /// Returns the table of flows, to change its options.
            pub fn table_mut(&mut self) -> &mut crate::flow::FlowTable<E, S> {
                &mut self.$($table).+
            }

            /// Returns how many flows began, ended and were evicted, and how many packets belong to no flow.
            pub fn stats(&self) -> crate::flow::FlowTableStats {
                self.table().stats()
            }

            /// Returns how many duplicates were left out, with
            /// [`FlowStream::with_dedup`](crate::flow::FlowStream::with_dedup).
            pub fn dedup_stats(&self) -> Option<crate::dedup::DedupStats> {
                self.pump.dedup.as_ref().map(crate::dedup::Dedup::stats)
            }

            /// Returns the stream of batches. The statistics of a capture tell what it lost.
            pub fn get_ref(&self) -> &St {
                &self.pump.stream
            }

            /// Returns the stream of batches, to stop it.
            pub fn get_mut(&mut self) -> &mut St {
                &mut self.pump.stream
            }
        }

        impl<St: std::fmt::Debug, B, E, S $(, $more)*> std::fmt::Debug for $stream<St, B, E, S $(, $more)*>
        where
            B: FlowSource,
            E: FlowExtractor,
            $(E::Key: $key,)?
            S: Send + 'static,
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($stream))
                    .field("stream", &self.pump.stream)
                    .finish_non_exhaustive()
            }
        }
    };
}

/// Implements the accessors of a stream of flows that reassembles TCP.
macro_rules! reassembling {
    ($stream:ident<St, B, E, S $(, $more:ident)*>) => {
        impl<St, B, E, S $(, $more)*> $stream<St, B, E, S $(, $more)*>
        where
            B: FlowSource,
            E: FlowExtractor,
            S: Send + 'static,
        {
            /// Sets how TCP streams are reassembled.
            #[must_use]
            pub fn with_reassembly(mut self, config: crate::flow::ReassemblyConfig) -> Self {
                self.pump.intake.config = config;
                self
            }

            /// Returns the statistics of TCP reassembly.
            pub fn reassembly_stats(&self) -> crate::flow::ReassemblyStats {
                self.pump.intake.reassembly()
            }
        }

        super::accessors!($stream<St, B, E, S $(, $more)*>, pump.intake.table);
    };
}

/// Implements `Stream` for a stream of flows, with the given item type.
macro_rules! yields {
    ($stream:ident<St, B, E, S $(, $more:ident)*>, $item:ty $(, $key:path)?) => {
        impl<St, B, E, S $(, $more)*> futures_core::Stream for $stream<St, B, E, S $(, $more)*>
        where
            St: futures_core::Stream<Item = crate::error::Result<B>> + Unpin,
            B: FlowSource,
            E: FlowExtractor,
            $(E::Key: $key,)?
            S: Send + 'static,
            Self: Unpin,
        {
            type Item = crate::error::Result<$item>;

            fn poll_next(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.get_mut().pump.poll_event(cx)
            }
        }
    };
}

pub(super) use accessors;
pub(super) use reassembling;
pub(super) use yields;
