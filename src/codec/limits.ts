/** CPG_MAX_NAME_LENGTH: a group name has 1 to 128 bytes. */
export const MAX_GROUP_NAME_BYTES = 128;

/** The size libcpg requests in the handshake (8192 * 128); no frame is larger. */
export const IPC_REQUEST_SIZE_BYTES = 1024 * 1024;

/** A frame without libcpg's reserve; a larger message is sent in fragments. */
export const MAX_ATOMIC_MESSAGE_BYTES = IPC_REQUEST_SIZE_BYTES - 1024;

/** The largest message this package sends or reassembles; libcpg has no limit. */
export const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** Largest frame accepted from a peer: the handshake answer may not ask for more. */
export const MAX_FRAME_BYTES = 16 * 1024 * 1024;

/** Addresses in a membership reply: PROCESSOR_COUNT_MAX of corosync, always sent in full. */
export const MEMBERSHIP_SLOTS = 384;
