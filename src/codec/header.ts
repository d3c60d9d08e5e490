/**
 * The two headers of libqb IPC (qb/qbipc_common.h): see docs/protocol.md.
 *
 * `size` counts the whole message, including the header. mcast and partial mcast requests use the larger (response)
 * header although they are requests.
 */
import { check, uint8Array } from '../arguments';
import { asBuffer, int32, malformed, Table, type Field } from './fields';
import { counted } from '../text';

/** `struct qb_ipc_request_header` of libqb. */
export interface RequestHeader {
  /** The message id. */
  id: number;
  /** Bytes of the whole message, including the header. */
  size: number;
}

/** `struct qb_ipc_response_header` of libqb. */
export interface ResponseHeader extends RequestHeader {
  /** A cs_error_t, 1 for success; meaningless in events. */
  error: number;
}

export const requestHeaderFields: Field[] = [int32('id'), int32('size')];
export const responseHeaderFields: Field[] = [...requestHeaderFields, int32('error')];

export const requestHeader = new Table<RequestHeader>('request header', ...requestHeaderFields);
export const responseHeader = new Table<ResponseHeader>('response header', ...responseHeaderFields);

const SIZE_OFFSET = requestHeader.offsetOf('size');

/** The header of any frame; `size` must be exactly the frame's. */
export function frameHeader(bytes: Uint8Array): RequestHeader {
  const header = requestHeader.decode(bytes);
  if (header.size !== bytes.length) {
    throw malformed(
      `a header that says ${counted(header.size, 'byte')} on a frame of ${bytes.length}`,
      'the same',
    );
  }
  return header;
}

/** The id of a frame of at least 4 bytes, without further checks. */
export function frameId(bytes: Uint8Array): number {
  return headerWord('frameId', bytes, 0);
}

/** The size that the header of a frame of at least 12 bytes claims. */
export function frameSize(bytes: Uint8Array): number {
  return headerWord('frameSize', bytes, SIZE_OFFSET);
}

function headerWord(call: string, bytes: Uint8Array, offset: number): number {
  const frame = Buffer.isBuffer(bytes) ? bytes : asBuffer(check(call, 'bytes', bytes, uint8Array));
  if (frame.length < offset + 4)
    throw malformed(`a frame of ${counted(frame.length, 'byte')}`, `at least ${offset + 4}`);
  return frame.readInt32LE(offset);
}
