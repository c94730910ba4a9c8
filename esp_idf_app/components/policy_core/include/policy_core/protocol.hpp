// Generated from quant/wire/protocol.py by `python -m quant.wire.protocol_header`; do not edit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace policy_core {

constexpr uint8_t kVersion = 2u;
constexpr uint8_t kDelimiter = 0u;
constexpr size_t kHeaderSize = 6u;
constexpr size_t kCrcSize = 4u;
constexpr size_t kMaxPayload = 3072u;
constexpr uint8_t kReply = 128u;
constexpr uint8_t kError = 255u;
constexpr uint8_t kMessages = 8u;
constexpr size_t kMaxSlots = 4u;
constexpr size_t kMaxPeers = 16u;
constexpr size_t kMaxFeatures = 16u;
constexpr size_t kMaxEgo = 64u;
constexpr size_t kMaxEmbedding = 128u;
constexpr size_t kMaxOutputs = 32u;
constexpr size_t kMaxResidualBits = 8u;
constexpr size_t kMaxRepeats = 1000u;
constexpr size_t kTrackSize = 16u;
constexpr uint32_t kNotAvailable = 4294967295u;
constexpr uint16_t kPackVersion = 2u;
constexpr size_t kPackHeaderSize = 64u;
constexpr size_t kPackSlotSize = 176u;
constexpr size_t kPackAlignment = 16u;
constexpr uint8_t kDecideInterfaces = 1u;
constexpr uint8_t kNoAction = 255u;
constexpr uint8_t kPackMagic[4] = {0x51, 0x50, 0x41, 0x4b};

enum class Message : uint8_t {
    kHello = 1,
    kModels = 2,
    kDecide = 3,
    kInvoke = 4,
    kBench = 5,
    kStats = 6,
    kReset = 7,
    kFault = 8,
};

enum class ErrorCode : uint8_t {
    kBadCrc = 1,
    kBadFrame = 2,
    kTooLong = 3,
    kBadVersion = 4,
    kUnknownType = 5,
    kBadLength = 6,
    kDuplicateSequence = 7,
    kUnknownSlot = 8,
    kBadInput = 9,
    kTooManyPeers = 10,
    kNoModels = 11,
    kEngineFailed = 12,
    kNotAvailable = 13,
    kBadArgument = 14,
};

enum class PackStatus : uint8_t {
    kOk = 0,
    kEmpty = 1,
    kBadMagic = 2,
    kBadVersion = 3,
    kBadLength = 4,
    kBadHash = 5,
    kBadSlot = 6,
    kBadModel = 7,
};

enum class EvidenceCode : uint8_t {
    kMeasured = 1,
    kEmulated = 2,
    kSimulated = 3,
    kComputed = 4,
};

enum class Capability : uint32_t {
    kTestFaults = 1,
    kTemperature = 2,
    kWatchdog = 4,
    kPaced = 8,
};

enum class Stage : uint8_t {
    kQuantize = 0,
    kEncode = 1,
    kPool = 2,
    kHead = 3,
    kOutput = 4,
    kTotal = 5,
};

enum class FaultKind : uint8_t {
    kPanic = 1,
    kHang = 2,
    kCorruptReply = 3,
    kCorruptOutput = 4,
};

enum class PartCode : uint8_t {
    kPeerEncoder = 0,
    kPolicyHead = 1,
};

enum class PoolingCode : uint8_t {
    kMax = 0,
    kSum = 1,
    kMean = 2,
};

enum class ActionCode : uint8_t {
    kDiscrete = 0,
    kBox = 1,
};

/// What a code means, for people.
constexpr const char *error_words(ErrorCode code) {
    switch (code) {
        case ErrorCode::kBadCrc:
            return "the CRC is not that of the frame";
        case ErrorCode::kBadFrame:
            return "not a frame: damaged COBS, or shorter than header and CRC";
        case ErrorCode::kTooLong:
            return "the frame is longer than the largest payload allows";
        case ErrorCode::kBadVersion:
            return "another version of the protocol";
        case ErrorCode::kUnknownType:
            return "no such message";
        case ErrorCode::kBadLength:
            return "the payload is not as long as the message demands";
        case ErrorCode::kDuplicateSequence:
            return "the sequence is that of the request before";
        case ErrorCode::kUnknownSlot:
            return "no such track or part";
        case ErrorCode::kBadInput:
            return "a feature is NaN or infinite, or a mask is neither 0 nor 1";
        case ErrorCode::kTooManyPeers:
            return "more peer slots than the models take";
        case ErrorCode::kNoModels:
            return "no models: the pack is missing or damaged";
        case ErrorCode::kEngineFailed:
            return "the engine could not run the model";
        case ErrorCode::kNotAvailable:
            return "not in this build";
        case ErrorCode::kBadArgument:
            return "an argument is out of range";
    }
    return "unknown";
}

/// What a code means, for people.
constexpr const char *pack_words(PackStatus code) {
    switch (code) {
        case PackStatus::kOk:
            return "the pack is whole";
        case PackStatus::kEmpty:
            return "the partition is empty: flash a pack";
        case PackStatus::kBadMagic:
            return "not a pack";
        case PackStatus::kBadVersion:
            return "a pack of another version";
        case PackStatus::kBadLength:
            return "the pack is cut off";
        case PackStatus::kBadHash:
            return "the contents are not those the pack was made with";
        case PackStatus::kBadSlot:
            return "a slot's width, sizes, offsets or scales are out of range";
        case PackStatus::kBadModel:
            return "the engine refuses a model, or its tensors are not those the slot declares";
    }
    return "unknown";
}

}  // namespace policy_core
