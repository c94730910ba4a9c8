#include "policy_core/frames.hpp"

#include "policy_core/bytes.hpp"
#include "policy_core/crc32.hpp"

namespace policy_core {
namespace {

bool is_printable(uint8_t byte) {
    return byte >= 0x20 || byte == '\t' || byte == '\n' || byte == '\r' || byte == 0x1B;
}

}  // namespace

size_t FrameBuilder::build(uint8_t type, uint16_t sequence, size_t size, bool damage) {
    Writer header(raw_, kHeaderSize);
    header.u8(kVersion);
    header.u8(type);
    header.u16(sequence);
    header.u16(static_cast<uint16_t>(size));
    const size_t covered = kHeaderSize + size;
    Writer crc(raw_ + covered, kCrcSize);
    crc.u32(crc32(raw_, covered) ^ (damage ? 1u : 0u));
    frame_[0] = kDelimiter;
    const size_t encoded = cobs_encode(raw_, covered + kCrcSize, frame_ + 1);
    frame_[1 + encoded] = kDelimiter;
    return encoded + 2;
}

Decoder::Event Decoder::push(uint8_t byte) {
    if (!inside_) {
        if (byte == kDelimiter) {
            inside_ = true;
            restart();
            return Event::kNone;
        }
        text_size_ = 1;
        return Event::kText;
    }
    if (byte == kDelimiter) {
        return size_ == 0 ? Event::kNone : close();
    }
    printable_ = printable_ && is_printable(byte);
    if (size_ == kMaxSegment) {
        ++size_;
        inside_ = false;
        return printable_ ? text() : damage(ErrorCode::kTooLong);
    }
    segment_[size_++] = byte;
    // Not at the first byte: it may be COBS's, of a frame whose second byte is its version, which is not printable.
    return byte == '\n' && size_ > 1 && printable_ ? text() : Event::kNone;
}

void Decoder::restart() {
    printable_ = true;
    size_ = 0;
}

Decoder::Event Decoder::text() {
    text_size_ = size_;
    restart();
    return Event::kText;
}

Decoder::Event Decoder::damage(ErrorCode error) {
    error_ = error;
    has_header_ = error == ErrorCode::kBadLength;
    restart();
    return Event::kDamage;
}

Decoder::Event Decoder::close() {
    if (printable_) {
        return text();
    }
    const size_t size = cobs_decode(segment_, size_, segment_);
    if (size == kNotCobs || size < kHeaderSize + kCrcSize) {
        return damage(ErrorCode::kBadFrame);
    }
    if (size > kMaxRawFrame) {
        return damage(ErrorCode::kTooLong);
    }
    const size_t covered = size - kCrcSize;
    if (crc32(segment_, covered) != load_u32(segment_ + covered)) {
        return damage(ErrorCode::kBadCrc);
    }
    inside_ = false;
    header_ = {segment_[0], segment_[1], load_u16(segment_ + 2), load_u16(segment_ + 4)};
    return header_.length == covered - kHeaderSize ? Event::kFrame : damage(ErrorCode::kBadLength);
}

}  // namespace policy_core
