-- Wireshark dissector for captures of `cpg tap --write`: libqb IPC, with all fields of corosync's CPG service.
--
--   wireshark -X lua_script:qbcpg.lua capture.pcapng
--
-- A packet is an "exported PDU" whose tags name this dissector. Its data begins with a header of 32 bytes and four
-- names (see src/tap/capture/packet.ts). The frame follows as it was in the ring. All numbers are little-endian.

local qbcpg = Proto("qbcpg", "libqb IPC (corosync CPG)")

local RINGS = { [0] = "request", [1] = "response", [2] = "event" }

local ERRORS = {
  [1] = "CS_OK", [2] = "CS_ERR_LIBRARY", [3] = "CS_ERR_VERSION", [4] = "CS_ERR_INIT", [5] = "CS_ERR_TIMEOUT",
  [6] = "CS_ERR_TRY_AGAIN", [7] = "CS_ERR_INVALID_PARAM", [8] = "CS_ERR_NO_MEMORY", [9] = "CS_ERR_BAD_HANDLE",
  [10] = "CS_ERR_BUSY", [11] = "CS_ERR_ACCESS", [12] = "CS_ERR_NOT_EXIST", [13] = "CS_ERR_NAME_TOO_LONG",
  [14] = "CS_ERR_EXIST", [15] = "CS_ERR_NO_SPACE", [16] = "CS_ERR_INTERRUPT", [17] = "CS_ERR_NAME_NOT_FOUND",
  [18] = "CS_ERR_NO_RESOURCES", [19] = "CS_ERR_NOT_SUPPORTED", [20] = "CS_ERR_BAD_OPERATION",
  [21] = "CS_ERR_FAILED_OPERATION", [22] = "CS_ERR_MESSAGE_ERROR", [23] = "CS_ERR_QUEUE_FULL",
  [24] = "CS_ERR_QUEUE_NOT_AVAILABLE", [25] = "CS_ERR_BAD_FLAGS", [26] = "CS_ERR_TOO_BIG",
  [27] = "CS_ERR_NO_SECTIONS", [28] = "CS_ERR_CONTEXT_NOT_FOUND", [30] = "CS_ERR_TOO_MANY_GROUPS",
  [100] = "CS_ERR_SECURITY",
}

local REASONS = { [0] = "undefined", [1] = "join", [2] = "leave", [3] = "node down", [4] = "node up", [5] = "process down" }
local GUARANTEES = { [0] = "unordered", [1] = "fifo", [2] = "agreed", [3] = "safe" }
-- Replies of cpg with a node id: membershipGet, localGet, iterationNext.
local WITH_NODE = { [3] = true, [7] = true, [10] = true }
local ITERATIONS = { [1] = "names only", [2] = "one group", [3] = "all" }
local FRAGMENTS = { [1] = "first", [2] = "continued", [3] = "last" }

-- Names of message ids, as in src/tap/decode/services.ts.
local function numbered(names)
  local list = {}
  for index, name in ipairs(names) do list[index - 1] = name end
  return list
end

local NAMES = {
  cpg = {
    request = numbered { "join", "leave", "mcast", "membershipGet", "localGet", "iterationInitialize", "iterationNext",
      "iterationFinalize", "finalize", "zeroCopyAlloc", "zeroCopyFree", "zeroCopyExecute", "partialMcast" },
    response = { [0] = "join", [1] = "leave", [2] = "mcast", [3] = "membershipGet", [4] = "confchg", [5] = "deliver",
      [7] = "localGet", [9] = "iterationInitialize", [10] = "iterationNext", [11] = "iterationFinalize",
      [12] = "finalize", [13] = "totemConfchg", [14] = "null", [17] = "partialDeliver", [18] = "partialMcast" },
  },
  cmap = {
    request = numbered { "set", "delete", "get", "adjustInt", "iterInit", "iterNext", "iterFinalize", "trackAdd",
      "trackDelete", "setCurrentMap" },
    response = numbered { "set", "delete", "get", "adjustInt", "iterInit", "iterNext", "iterFinalize", "trackAdd",
      "trackDelete", "notify", "setCurrentMap" },
  },
  cfg = {
    request = numbered { "ringStatusGet", "ringReenable", "killNode", "tryShutdown", "replyToShutdown", "getNodeAddrs",
      "localGet", "reloadConfig", "reopenLogFiles", "nodeStatusGet", "trackStart", "trackStop" },
    response = numbered { "ringStatusGet", "ringReenable", "stateTrackStart", "stateTrackStop",
      "administrativeStateSet", "administrativeStateGet", "serviceLoad", "serviceUnload", "killNode", "tryShutdown",
      "testShutdown", "getNodeAddrs", "localGet", "replyToShutdown", "reloadConfig", "reopenLogFiles", "nodeStatusGet" },
  },
  quorum = {
    request = numbered { "getQuorate", "trackStart", "trackStop", "getType", "modelGetType" },
    response = numbered { "getQuorate", "trackStart", "trackStop", "notification", "getType", "modelGetType",
      "quorumNotification", "nodelistNotification" },
  },
  votequorum = {
    request = numbered { "getInfo", "setExpected", "setVotes", "trackStart", "trackStop", "qdeviceRegister",
      "qdeviceUnregister", "qdeviceUpdate", "qdevicePoll", "qdeviceMasterWins", "qdeviceSetExtraInfo",
      "qdeviceGetExtraInfo" },
    response = numbered { "status", "getInfo", "trackStart", "quorumNotification", "expectedVotesNotification",
      "nodelistNotification", "qdeviceGetExtraInfo", "qdeviceExtraInfoNotification" },
  },
}

-- Requests of cpg that have no reply.
local UNANSWERED = { [2] = true }

local f = {
  version = ProtoField.uint8("qbcpg.version", "Version"),
  ring = ProtoField.uint8("qbcpg.ring", "Ring", base.DEC, RINGS),
  old = ProtoField.bool("qbcpg.old", "Older than the tap", 8, nil, 1),
  consumed = ProtoField.bool("qbcpg.consumed", "Already consumed", 8, nil, 2),
  connection = ProtoField.uint32("qbcpg.connection", "Connection"),
  client_pid = ProtoField.uint32("qbcpg.client_pid", "Client pid"),
  server_pid = ProtoField.uint32("qbcpg.server_pid", "Server pid"),
  missed = ProtoField.uint32("qbcpg.missed", "Missed before"),
  length = ProtoField.uint32("qbcpg.frame_length", "Frame length"),
  offset = ProtoField.uint32("qbcpg.offset", "Offset of this part"),
  service = ProtoField.string("qbcpg.service", "Service"),
  client = ProtoField.string("qbcpg.client", "Client"),
  server = ProtoField.string("qbcpg.server", "Server"),
  origin = ProtoField.string("qbcpg.origin", "Capture and directory"),
  name = ProtoField.string("qbcpg.message", "Message"),
  id = ProtoField.int32("qbcpg.id", "Id"),
  size = ProtoField.int32("qbcpg.size", "Size"),
  error = ProtoField.int32("qbcpg.error", "Error", base.DEC, ERRORS),
  group = ProtoField.string("qbcpg.group", "Group"),
  group_length = ProtoField.uint32("qbcpg.group_length", "Group name length"),
  nodeid = ProtoField.uint32("qbcpg.nodeid", "Node id"),
  local_nodeid = ProtoField.uint32("qbcpg.local_nodeid", "Node id of this daemon"),
  pid = ProtoField.uint32("qbcpg.pid", "Pid"),
  reason = ProtoField.uint32("qbcpg.reason", "Reason", base.DEC, REASONS),
  flags = ProtoField.uint32("qbcpg.flags", "Flags", base.HEX),
  guarantee = ProtoField.uint32("qbcpg.guarantee", "Guarantee", base.DEC, GUARANTEES),
  message_length = ProtoField.uint32("qbcpg.message_length", "Message length"),
  fragment_length = ProtoField.uint32("qbcpg.fragment_length", "Fragment length"),
  fragment_type = ProtoField.uint32("qbcpg.fragment_type", "Fragment", base.DEC, FRAGMENTS),
  iteration = ProtoField.uint32("qbcpg.iteration_type", "Iteration", base.DEC, ITERATIONS),
  handle = ProtoField.uint64("qbcpg.handle", "Handle", base.HEX),
  count = ProtoField.uint32("qbcpg.count", "Members"),
  joined = ProtoField.uint32("qbcpg.joined", "Joined"),
  left = ProtoField.uint32("qbcpg.left", "Left"),
  ring_nodeid = ProtoField.uint32("qbcpg.ring_nodeid", "Ring node id"),
  ring_seq = ProtoField.uint64("qbcpg.ring_seq", "Ring sequence"),
  data = ProtoField.bytes("qbcpg.data", "Data"),
  request_in = ProtoField.framenum("qbcpg.request_in", "Answers", base.NONE, frametype.REQUEST),
  response_in = ProtoField.framenum("qbcpg.response_in", "Answered in", base.NONE, frametype.RESPONSE),
  time = ProtoField.relative_time("qbcpg.time", "Time since the request"),
}
qbcpg.fields = f

local malformed = ProtoExpert.new("qbcpg.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR)
local gap = ProtoExpert.new("qbcpg.gap", "Messages were missed", expert.group.SEQUENCE, expert.severity.WARN)
qbcpg.experts = { malformed, gap }

-- State that the first pass over the file fills, in order:
--   waiting                                requests that wait for their reply, by connection
--   answers, answered_by, times            which packet answers which, by packet number, and how much later
--   joining                                the pid that a connection joins with, until its own join is delivered
--   group_of_..., node_of_...              the group and the node of each connection and of each packet
--   last_of_ring, name_of_part             the last message in each ring, and the name of the message that a packet continues
local waiting, answers, answered_by, times, group_of_connection, group_of_packet, node_of_connection, node_of_packet
local last_of_ring, name_of_part, joining

function qbcpg.init()
  waiting, answers, answered_by, times = {}, {}, {}, {}
  group_of_connection, group_of_packet, node_of_connection, node_of_packet = {}, {}, {}, {}
  last_of_ring, name_of_part, joining = {}, {}, {}
end

-- Whether the frame has these bytes. Every read checks first, because no read may fail.
local function within(frame, offset, length)
  return offset >= 0 and length >= 0 and offset + length <= frame:len()
end

local function u32(tree, field, frame, offset)
  if not within(frame, offset, 4) then return nil end
  tree:add_le(field, frame(offset, 4))
  return frame(offset, 4):le_uint()
end

local function u64(tree, field, frame, offset)
  if within(frame, offset, 8) then tree:add_le(field, frame(offset, 8)) end
end

-- "1 byte", "2 bytes".
local function counted(count, singular)
  return count .. " " .. singular .. (count == 1 and "" or "s")
end

-- Whether the bytes are valid UTF-8: no surrogates, nothing beyond U+10FFFF, no overlong forms.
local function is_utf8(bytes)
  local at = 1
  while at <= #bytes do
    local first, second = bytes:byte(at, at + 1)
    local more
    if first < 0x80 then more = 0
    elseif first >= 0xc2 and first <= 0xdf then more = 1
    elseif first >= 0xe0 and first <= 0xef then more = 2
    elseif first >= 0xf0 and first <= 0xf4 then more = 3
    else return false end
    if not bytes:find("^" .. string.rep("[\128-\191]", more), at + 1) then return false end
    if (first == 0xe0 and second < 0xa0) or (first == 0xed and second > 0x9f) then return false end
    if (first == 0xf0 and second < 0x90) or (first == 0xf4 and second > 0x8f) then return false end
    at = at + 1 + more
  end
  return true
end

local NAMED = { ["\0"] = "\\0", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\" }
-- C1 controls, line separators and marks that change the writing direction, as bytes. C0 controls are handled before.
local UNSAFE = {
  "\194[\128-\159]", "\216\156", "\226\128[\139-\143]", "\226\128[\168-\174]", "\226\129[\160-\169]", "\239\187\191", "\239\191[\189\190\191]",
}

-- A group name as `cpg` prints and accepts it (groupLabel in src/codec/groups.ts). A raw NUL would end the text here.
local function group_label(bytes)
  local function escape(part)
    return NAMED[part] or part:gsub(".", function(byte) return string.format("\\x%02x", byte:byte()) end)
  end
  if not is_utf8(bytes) then
    return "0x" .. bytes:gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
  end
  local label = bytes:gsub("[%z\1-\31\\\127]", escape)
  for _, pattern in ipairs(UNSAFE) do label = label:gsub(pattern, escape) end
  return (label:gsub("^0x", "\\x30x"))
end

-- A group name: its length, then 128 bytes.
local function group(tree, frame, offset)
  if not within(frame, offset, 136) then return nil end
  local length = frame(offset, 4):le_uint()
  tree:add_le(f.group_length, frame(offset, 4))
  if length == 0 or length > 128 then return nil end
  local label = group_label(frame(offset + 8, length):raw())
  tree:add(f.group, frame(offset + 8, length), label)
  return label
end

local function rest(tree, frame, offset)
  if frame:len() > offset then tree:add(f.data, frame(offset)) end
end

local function addresses(tree, frame, offset, count, label)
  for index = 0, count - 1 do
    local at = offset + index * 24
    if not within(frame, at, 24) then return at end
    local text = string.format("%s %d:%d", label, frame(at, 4):le_uint(), frame(at + 8, 4):le_uint())
    local entry = tree:add(qbcpg, frame(at, 24), text)
    u32(entry, f.nodeid, frame, at)
    u32(entry, f.pid, frame, at + 8)
    u32(entry, f.reason, frame, at + 16)
  end
  return offset + count * 24
end

-- Dissectors of what follows the header, one for each message of cpg. They return the group and a text for the info column.
local requests = {
  [0] = function(tree, frame)
    local name = group(tree, frame, 16)
    local pid = u32(tree, f.pid, frame, 152)
    u32(tree, f.flags, frame, 160)
    return name, pid and ("as pid " .. pid)
  end,
  [1] = function(tree, frame)
    local name = group(tree, frame, 16)
    local pid = u32(tree, f.pid, frame, 152)
    return name, pid and ("as pid " .. pid)
  end,
  [2] = function(tree, frame)
    u32(tree, f.guarantee, frame, 24)
    local length = u32(tree, f.message_length, frame, 32)
    rest(tree, frame, 40)
    return nil, length and counted(length, "byte")
  end,
  [3] = function(tree, frame) return group(tree, frame, 16) end,
  [5] = function(tree, frame)
    local name = group(tree, frame, 16)
    local kind = u32(tree, f.iteration, frame, 152)
    return name, kind and (ITERATIONS[kind] or kind)
  end,
  [6] = function(tree, frame) u64(tree, f.handle, frame, 16) end,
  [7] = function(tree, frame) u64(tree, f.handle, frame, 16) end,
  [12] = function(tree, frame)
    u32(tree, f.guarantee, frame, 24)
    local length = u32(tree, f.message_length, frame, 32)
    u32(tree, f.fragment_length, frame, 40)
    local kind = u32(tree, f.fragment_type, frame, 48)
    rest(tree, frame, 56)
    return nil, kind and string.format("%s fragment of %s", FRAGMENTS[kind] or kind, counted(length, "byte"))
  end,
}

local responses = {
  [3] = function(tree, frame)
    local count = u32(tree, f.count, frame, 24) or 0
    addresses(tree, frame, 32, math.min(count, 384), "member")
    return nil, counted(count, "member")
  end,
  [7] = function(tree, frame)
    local nodeid = u32(tree, f.nodeid, frame, 24)
    return nil, nodeid and ("node " .. nodeid)
  end,
  [9] = function(tree, frame) u64(tree, f.handle, frame, 24) end,
  [10] = function(tree, frame)
    local name = group(tree, frame, 24)
    local nodeid = u32(tree, f.nodeid, frame, 160)
    local pid = u32(tree, f.pid, frame, 164)
    return name, pid and (nodeid .. ":" .. pid)
  end,
}

local events = {
  [4] = function(tree, frame)
    local name = group(tree, frame, 24)
    local members = u32(tree, f.count, frame, 160) or 0
    local joined = u32(tree, f.joined, frame, 168) or 0
    local left = u32(tree, f.left, frame, 176) or 0
    local most = math.floor(frame:len() / 24)
    -- The lists are in a different order from their counts.
    local at = addresses(tree, frame, 184, math.min(members, most), "member")
    at = addresses(tree, frame, at, math.min(left, most), "left")
    addresses(tree, frame, at, math.min(joined, most), "joined")
    return name, string.format("%s, %d joined, %d left", counted(members, "member"), joined, left)
  end,
  [5] = function(tree, frame)
    local name = group(tree, frame, 24)
    local length = u32(tree, f.message_length, frame, 160)
    local nodeid = u32(tree, f.nodeid, frame, 168)
    local pid = u32(tree, f.pid, frame, 176)
    rest(tree, frame, 184)
    return name, pid and string.format("from %d:%d, %s", nodeid, pid, counted(length, "byte"))
  end,
  [13] = function(tree, frame)
    u32(tree, f.ring_nodeid, frame, 24)
    u64(tree, f.ring_seq, frame, 32)
    local count = u32(tree, f.count, frame, 40) or 0
    for index = 0, math.min(count, math.floor(frame:len() / 4)) - 1 do
      u32(tree, f.nodeid, frame, 44 + 4 * index)
    end
    return nil, counted(count, "node")
  end,
  [17] = function(tree, frame)
    local name = group(tree, frame, 24)
    local length = u32(tree, f.message_length, frame, 160)
    u32(tree, f.fragment_length, frame, 168)
    local nodeid = u32(tree, f.nodeid, frame, 176)
    local pid = u32(tree, f.pid, frame, 184)
    local kind = u32(tree, f.fragment_type, frame, 192)
    rest(tree, frame, 200)
    return name, kind and string.format("from %d:%d, %s fragment of %s", nodeid, pid, FRAGMENTS[kind] or kind, counted(length, "byte"))
  end,
}

-- Links replies to requests, and finds the group and the node of a connection. Runs once, while the file is read in order.
local function follow(pinfo, ring, connection, service, id, own_group, own_node)
  if own_group and service == "cpg" and ((ring == "request" and id == 0) or ring == "event") then
    group_of_connection[connection] = own_group
  end
  if service == "cpg" then
    if own_node then node_of_connection[connection] = own_node end
    group_of_packet[pinfo.number] = own_group or group_of_connection[connection]
    node_of_packet[pinfo.number] = node_of_connection[connection]
  end
  local queue = waiting[connection] or {}
  waiting[connection] = queue
  if ring == "request" and not (service == "cpg" and UNANSWERED[id]) then
    table.insert(queue, { number = pinfo.number, time = pinfo.abs_ts })
  elseif ring == "response" and #queue > 0 then
    local request = table.remove(queue, 1)
    answers[pinfo.number] = request.number
    answered_by[request.number] = pinfo.number
    times[pinfo.number] = pinfo.abs_ts - request.time
  end
end

-- The node of a connection, from the first configuration change after its join request, which is its own join. The pid
-- alone is not enough, because a member on another node may have the same pid.
local function own_join(connection, frame)
  local pid = joining[connection]
  joining[connection] = nil
  if not pid or not within(frame, 160, 20) then return nil end
  local members, joined, left = frame(160, 4):le_uint(), frame(168, 4):le_uint(), frame(176, 4):le_uint()
  local at = 184 + 24 * (members + left)
  if joined == 1 and within(frame, at, 24) and frame(at + 8, 4):le_uint() == pid then return frame(at, 4):le_uint() end
end

-- Adds what earlier packets show about this one. If the message has no node id, it is that of the daemon.
local function known(tree, number, has_group, has_node)
  local group, node = group_of_packet[number], node_of_packet[number]
  if group and not has_group then tree:add(f.group, group):set_generated() end
  if node and not has_node then tree:add(f.nodeid, node):set_generated() end
  return group, node
end

local function links(tree, pinfo)
  local number = pinfo.number
  if answers[number] then
    tree:add(f.request_in, answers[number]):set_generated()
    local seconds = math.floor(times[number])
    tree:add(f.time, NSTime.new(seconds, math.floor((times[number] - seconds) * 1e9))):set_generated()
  end
  if answered_by[number] then tree:add(f.response_in, answered_by[number]):set_generated() end
end

function qbcpg.dissector(buffer, pinfo, root)
  pinfo.cols.protocol = "qbcpg"
  local tree = root:add(qbcpg, buffer())
  if buffer:len() < 32 then
    tree:add_proto_expert_info(malformed, "shorter than its header")
    return buffer:len()
  end
  local ring = RINGS[buffer(1, 1):uint()] or "unknown"
  local service_length, client_length, server_length = buffer(28, 1):uint(), buffer(29, 1):uint(), buffer(30, 1):uint()
  local origin_length = buffer(31, 1):uint()
  local names_length = service_length + client_length + server_length + origin_length
  local start = 32 + math.ceil(names_length / 4) * 4
  if buffer:len() < start then
    tree:add_proto_expert_info(malformed, "shorter than its names")
    return buffer:len()
  end
  local capture = tree:add(qbcpg, buffer(0, start), "Capture")
  capture:add(f.version, buffer(0, 1))
  capture:add(f.ring, buffer(1, 1))
  capture:add(f.old, buffer(2, 1))
  capture:add(f.consumed, buffer(2, 1))
  capture:add_le(f.connection, buffer(4, 4))
  capture:add_le(f.client_pid, buffer(8, 4))
  capture:add_le(f.server_pid, buffer(12, 4))
  capture:add_le(f.missed, buffer(16, 4))
  capture:add_le(f.length, buffer(20, 4))
  capture:add_le(f.offset, buffer(24, 4))
  local service, client, server, origin = "", "", "", ""
  if service_length > 0 then
    capture:add_packet_field(f.service, buffer(32, service_length), ENC_UTF_8)
    service = buffer(32, service_length):string(ENC_UTF_8)
  end
  if client_length > 0 then
    capture:add_packet_field(f.client, buffer(32 + service_length, client_length), ENC_UTF_8)
    client = buffer(32 + service_length, client_length):string(ENC_UTF_8)
  end
  if server_length > 0 then
    capture:add_packet_field(f.server, buffer(32 + service_length + client_length, server_length), ENC_UTF_8)
    server = buffer(32 + service_length + client_length, server_length):string(ENC_UTF_8)
  end
  if origin_length > 0 then
    local at = 32 + service_length + client_length + server_length
    capture:add_packet_field(f.origin, buffer(at, origin_length), ENC_UTF_8)
    origin = buffer(at, origin_length):string(ENC_UTF_8)
  end
  local missed = buffer(16, 4):le_uint()
  if missed > 0 and buffer(24, 4):le_uint() == 0 then capture:add_proto_expert_info(gap, "about " .. counted(missed, "message") .. " missed before this one") end

  -- The daemon may see no pid of several clients.
  if buffer(8, 4):le_uint() == 0 then client = "connection-" .. buffer(4, 4):le_uint() end
  local client_end = string.format("%s[%d]", client, buffer(8, 4):le_uint())
  local server_end = string.format("%s[%d]", server, buffer(12, 4):le_uint())
  pinfo.cols.src = ring == "request" and client_end or server_end
  pinfo.cols.dst = ring == "request" and server_end or client_end

  -- Merged captures may have equal ids and pids.
  local connection = table.concat({ origin, buffer(4, 4):le_uint(), client_end, server_end, service }, " ")
  local offset = buffer(24, 4):le_uint()
  if offset > 0 or buffer:len() == start then
    if not pinfo.visited and offset > 0 then
      local whole = last_of_ring[connection .. ring] or {}
      name_of_part[pinfo.number] = whole.name
      group_of_packet[pinfo.number] = group_of_connection[connection]
      node_of_packet[pinfo.number] = whole.node
    end
    local name = name_of_part[pinfo.number]
    if name then tree:add(f.name, name):set_generated() end
    known(tree, pinfo.number, false, false)
    if buffer:len() > start then tree:add(f.data, buffer(start)) end
    pinfo.cols.info = string.format("%s %s, more of the frame before, from byte %d on", name or "", ring, offset)
    return buffer:len()
  end

  local frame = buffer(start):tvb()
  local header = ring == "request" and 16 or 24
  if frame:len() < 16 then
    tree:add_proto_expert_info(malformed, "shorter than an IPC header")
    return buffer:len()
  end
  local id = frame(0, 4):le_int()
  local names = NAMES[service] and NAMES[service][ring == "request" and "request" or "response"]
  local name = (names and names[id]) or ("id " .. id)
  local message = tree:add(qbcpg, frame(), string.format("%s %s: %s", service, ring, name))
  message:add(f.name, frame(0, 4), name)
  message:add_le(f.id, frame(0, 4))
  message:add_le(f.size, frame(8, 4))
  -- A frame that does not fit into a packet goes on in the next ones.
  local size, whole = frame(8, 4):le_int(), buffer(20, 4):le_uint()
  if size ~= whole then
    message:add_proto_expert_info(malformed, string.format("says %s on a frame of %d", counted(size, "byte"), whole))
  elseif whole < header then
    message:add_proto_expert_info(malformed, string.format("%s, where a header has %d", counted(whole, "byte"), header))
  end
  local info = { name, ring }
  local failed = false
  if ring == "response" and frame:len() >= 24 then
    local code = frame(16, 4):le_int()
    message:add_le(f.error, frame(16, 4))
    -- Services of others have error numbers of their own.
    table.insert(info, NAMES[service] and ERRORS[code] or ("error " .. code))
    failed = code ~= 1
  end

  local own_group, text
  if service == "cpg" and not failed then
    local tables = { request = requests, response = responses, event = events }
    local decode = tables[ring] and tables[ring][id]
    if decode then own_group, text = decode(message, frame) end
  elseif frame:len() > header then
    message:add(f.data, frame(header))
  end

  -- The reply to localGet and the join of a client show the daemon's own node id.
  local own_node
  if not pinfo.visited and service == "cpg" then
    if ring == "request" and id == 0 and within(frame, 152, 4) then joining[connection] = frame(152, 4):le_uint() end
    if ring == "event" and missed > 0 then joining[connection] = nil end
    if ring == "event" and id == 4 then own_node = own_join(connection, frame) end
  end
  if service == "cpg" and ring == "response" and id == 7 and not failed and within(frame, 24, 4) then
    own_node = frame(24, 4):le_uint()
  end
  if not pinfo.visited then
    follow(pinfo, ring, connection, service, id, own_group, own_node)
    local sender = ring == "event" and id == 5 and within(frame, 168, 4) and frame(168, 4):le_uint()
    last_of_ring[connection .. ring] = { name = name, node = sender or node_of_connection[connection] }
  end
  local has_node = ring == "event" or (ring == "response" and WITH_NODE[id] and not failed)
  local known_group, node = known(message, pinfo.number, own_group ~= nil, has_node)
  if node then message:add(f.local_nodeid, node):set_generated() end
  if known_group then table.insert(info, '"' .. known_group .. '"') end
  if text then table.insert(info, text) end
  links(tree, pinfo)
  pinfo.cols.info = table.concat(info, " ")
  return buffer:len()
end
