// Frames on a line that carries text as well: `00 COBS(header payload crc) 00`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "policy_core/cobs.hpp"
#include "policy_core/protocol.hpp"

namespace policy_core {

/// Bytes of a frame before COBS, at most.
constexpr size_t kMaxRawFrame = kHeaderSize + kMaxPayload + kCrcSize;
/// Bytes between a frame's delimiters, at most.
constexpr size_t kMaxSegment = cobs_limit(kMaxRawFrame);
/// Bytes of a frame on the line, at most.
constexpr size_t kMaxFrame = kMaxSegment + 2;

/// What the header of a frame says.
struct FrameHeader {
    uint8_t version = 0;
    uint8_t type = 0;
    uint16_t sequence = 0;
    uint16_t length = 0;
};

/// Builds a frame. The caller writes the payload straight to where it belongs, so that nothing is copied.
class FrameBuilder {
public:
    /// Where the payload goes: room for kMaxPayload bytes.
    uint8_t *payload() { return raw_ + kHeaderSize; }

    /// Closes the frame over `size` <= kMaxPayload bytes of payload; returns how many bytes at data() go on the line.
    /// With `damage` the CRC is wrong on purpose.
    size_t build(uint8_t type, uint16_t sequence, size_t size, bool damage = false);

    const uint8_t *data() const { return frame_; }

private:
    uint8_t raw_[kMaxRawFrame];
    uint8_t frame_[kMaxFrame];
};

/// Separates frames from text, byte by byte, without I/O.
///
/// Outside a frame everything up to a 0x00 is text. Inside, bytes are collected up to a 0x00, and then:
///  - nothing was collected: the second 0x00 of two is the opening one;
///  - all is printable (tab, line feed, carriage return, escape, 0x20 and above): it was text, this 0x00 opens a frame;
///  - it is COBS with a good CRC: a frame of any version, or damage with a header if the length is wrong; then outside;
///  - anything else: damage, and this 0x00 may open a frame.
/// A line feed inside ends a text that is all printable so far, so that a log line does not wait for a 0x00. One byte
/// more than the longest frame has is damage (or text) at once; what follows counts as text.
class Decoder {
public:
    enum class Event : uint8_t {
        kNone,  ///< Nothing is complete yet.
        kText,  ///< text_size() bytes were text.
        kFrame,  ///< header(), payload() and payload_size() are a frame's; the version may be any.
        kDamage,  ///< error() says what is wrong; has_header() if it is known whose frame it was.
    };

    /// Takes one byte. What an event speaks of stays until the next call.
    Event push(uint8_t byte);

    size_t text_size() const { return text_size_; }
    const FrameHeader &header() const { return header_; }
    const uint8_t *payload() const { return segment_ + kHeaderSize; }
    size_t payload_size() const { return header_.length; }
    /// kBadFrame, kTooLong or kBadCrc without a header; kBadLength with one.
    ErrorCode error() const { return error_; }
    bool has_header() const { return has_header_; }

private:
    Event close();
    Event text();
    Event damage(ErrorCode error);
    void restart();

    bool inside_ = false;
    bool printable_ = true;
    bool has_header_ = false;
    ErrorCode error_ = ErrorCode::kBadFrame;
    size_t size_ = 0;  ///< Of what was collected.
    size_t text_size_ = 0;
    FrameHeader header_;
    uint8_t segment_[kMaxSegment];
};

}  // namespace policy_core
